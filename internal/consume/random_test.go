package consume

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// TestRandomFaultsLoseNothing has requests and streams fail at random: every message is
// acked in the end, no message stays outstanding, and no ack counts that Pub/Sub has not
// confirmed.
func TestRandomFaultsLoseNothing(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			f := newFake(t, 500)
			f.perAnswer = 1 + rng.IntN(100)
			f.buffered = rng.IntN(5)
			set := f.misbehave(seed)
			r := newRig(t, f, Options{MaxEvents: 200 + rng.IntN(400), Streams: 1 + rng.IntN(4)})
			seen, settled := 0, map[*Message]bool{}
			step := func() {
				all := r.box.all()
				var acks, releases, expiring []*Message
				for _, m := range all[seen:] {
					switch rng.IntN(10) {
					case 0:
						releases = append(releases, m)
					case 1:
						expiring = append(expiring, m)
					default:
						acks = append(acks, m)
					}
					if settled[m] {
						t.Errorf("seed %d: %s is delivered as new twice", seed, m.ID)
					}
					settled[m] = true
				}
				seen = len(all)
				r.Ack(acks)
				r.Nack(releases)
				r.LetExpire(expiring)
			}
			for range 60 {
				time.Sleep(time.Duration(rng.IntN(40)) * time.Second / 4)
				switch rng.IntN(8) {
				case 0:
					set(rng.Float64())
				case 1:
					set(0)
				case 2:
					f.breakStreams()
				case 3:
					f.expire()
				case 4:
					f.publish(rng.IntN(100), 10)
				default:
					step()
				}
			}
			set(0)
			for range 40 {
				time.Sleep(20 * time.Second)
				step()
			}
			if err := r.flush(time.Minute); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			if n := f.unacked(); n != 0 {
				t.Errorf("seed %d: %d are not acknowledged", seed, n)
			}
			if n := r.Unconfirmed(); n != 0 {
				t.Errorf("seed %d: %d are not confirmed", seed, n)
			}
			r.leases.mu.Lock()
			if len(r.leases.outstanding) != 0 || r.leases.bytes != 0 {
				t.Errorf("seed %d: %d messages and %d bytes are outstanding", seed, len(r.leases.outstanding), r.leases.bytes)
			}
			r.leases.mu.Unlock()
			r.end()
		})
	}
}
