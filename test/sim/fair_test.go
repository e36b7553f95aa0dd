package sim_test

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/metrics"
)

const nilUUID = "00000000-0000-0000-0000-000000000000"

// flood is a sender's flood of events, beside one honest service.
type flood struct {
	name    string
	events  int
	message func(n int) (attributes map[string]string, body []byte)
	latency time.Duration // of a submission
}

func identity(service, environment string) map[string]string {
	return map[string]string{"service_id": service, "service_environment": environment}
}

var floods = []flood{
	{name: "30,000 events with the nil UUID", events: 30_000, latency: 50 * time.Millisecond, message: func(n int) (map[string]string, []byte) {
		return identity("alpha", "sim"), data(n, nilUUID)
	}},
	{name: "10,000 environments", events: 10_000, latency: 5 * time.Millisecond, message: func(n int) (map[string]string, []byte) {
		return identity("alpha", fmt.Sprintf("made-up-%d", n)), data(n, eventID(n))
	}},
	{name: "10,000 services that are not listed", events: 10_000, latency: 5 * time.Millisecond, message: func(n int) (map[string]string, []byte) {
		return identity(fmt.Sprintf("made-up-%d", n), "sim"), data(n, eventID(n))
	}},
}

// TestFloodDelaysNoOtherService has a service send a flood that would take many streams,
// and an honest one an event every 50 ms. Once it is received, an honest event waits for
// the batch delay and for at most two submissions, and the flood is drained within 10 s. A
// drain keeps events back as controls, but no honest one for longer than that.
func TestFloodDelaysNoOtherService(t *testing.T) {
	large(t)
	m := metrics.New()
	for _, f := range floods {
		for _, drain := range []bool{false, true} {
			name := f.name
			if drain {
				name += ", in a drain"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newEnv(t, *seed, m, slog.New(slog.DiscardHandler))
					p := plan{settings: rowSettings, workers: 1, latency: f.latency}
					w.nowPlan.Store(&p)
					f.publish(w)
					k := w.start(drain, time.Hour)
					began := time.Now()
					var honest []*message
					for n := 0; time.Since(began) < 10*time.Second; n++ {
						honest = append(honest, w.publishHonest(n))
						time.Sleep(50 * time.Millisecond)
					}
					w.ledger.mu.Lock()
					recorded := len(w.ledger.records)
					w.ledger.mu.Unlock()
					if recorded < f.events {
						t.Errorf("after 10 s, %d events of %d are recorded", recorded, f.events)
					}
					time.Sleep(time.Second)
					w.checkWaits(t, honest, p.settings.batchDelay+2*f.latency)
					if drain {
						<-k.done
					} else {
						k.end()
					}
					w.ledger.close()
					for _, v := range w.violations[:min(5, len(w.violations))] {
						t.Error(v)
					}
					for v, n := range w.ledger.records {
						if n > 1 {
							t.Fatalf("%s was recorded %d times", v.wire, n)
						}
					}
				})
			})
		}
	}
}

// TestControlsDoNotWaitForAFlood has a drain keep honest events back as controls, just
// before a flood arrives. They must not wait for the flood, even if the gateway leaves out
// one of its events.
func TestControlsDoNotWaitForAFlood(t *testing.T) {
	large(t)
	m := metrics.New()
	for _, bad := range []int{0, 1} {
		t.Run(fmt.Sprintf("%d events left out", bad), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newEnv(t, *seed, m, slog.New(slog.DiscardHandler))
				f := floods[1]
				p := plan{settings: rowSettings, workers: 1, latency: 50 * time.Millisecond}
				w.nowPlan.Store(&p)
				var honest []*message
				for n := range 40 {
					honest = append(honest, w.publishHonest(n))
				}
				for n := range bad {
					w.ledger.published(w.sub.publish(leftOut, &pubsubpb.PubsubMessage{Data: data(n, eventID(2_000_000+n)), Attributes: identity("alpha", "sim")}))
				}
				k := w.start(true, time.Hour)
				for w.sub.unseen(honest[0]) {
					time.Sleep(time.Millisecond)
				}
				time.Sleep(p.settings.batchDelay + p.latency/2) // the first of them are in flight
				f.publish(w)
				time.Sleep(time.Minute)
				w.checkWaits(t, honest, p.settings.batchDelay+2*p.latency)
				<-k.done
				w.ledger.close()
				for _, v := range w.violations[:min(5, len(w.violations))] {
					t.Error(v)
				}
			})
		})
	}
}

// unseen reports whether a message was never delivered.
func (s *subscription) unseen(m *message) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.given.IsZero()
}

// publish publishes the whole flood.
func (f flood) publish(w *env) {
	for n := range f.events {
		attributes, body := f.message(n)
		w.ledger.published(w.sub.publish(healthy, &pubsubpb.PubsubMessage{Data: body, Attributes: attributes}))
	}
}

// publishHonest publishes an event of the service that the floods stand beside.
func (w *env) publishHonest(n int) *message {
	m := w.sub.publish(healthy, &pubsubpb.PubsubMessage{Data: data(n, eventID(1_000_000+n)), Attributes: identity("honest", "sim")})
	w.ledger.published(m)
	return m
}

// checkWaits checks how long the events waited from delivery to being recorded, apart from
// one in a hundred.
func (w *env) checkWaits(t *testing.T, messages []*message, bound time.Duration) {
	t.Helper()
	var waits []time.Duration
	w.ledger.mu.Lock()
	for _, m := range messages {
		recorded, ok := w.ledger.first[w.ledger.of[m.GetMessageId()]]
		if !ok {
			recorded = time.Now()
		}
		waits = append(waits, recorded.Sub(m.given))
	}
	w.ledger.mu.Unlock()
	slices.Sort(waits)
	p99 := waits[len(waits)*99/100]
	t.Logf("p50 %v, p99 %v, max %v, of %d", waits[len(waits)/2], p99, waits[len(waits)-1], len(waits))
	if p99 > bound {
		t.Errorf("99 %% of the honest events waited for %v or less, want %v at most", p99, bound)
	}
}

// TestCollisionsAreRecorded has events with one id of which some are left out, and a
// gateway that lists an id once however many of them it has recorded. All events that can
// be recorded must be, and few of them often.
func TestCollisionsAreRecorded(t *testing.T) {
	m := metrics.New()
	for _, c := range []struct {
		name      string
		events    int
		id        func(n int) string
		bad       func(n int) bool
		listsOnce bool
		twice     float64 // bound on repeated records per event, on average
		streams   int     // at most
	}{
		{name: "ten of a thousand left out", events: 1000, id: func(int) string { return nilUUID }, bad: everyHundred, twice: 2, streams: 400},
		{name: "half of a hundred left out", events: 100, id: func(int) string { return nilUUID }, bad: func(n int) bool { return n%2 == 0 }, twice: 1, streams: 1500},
		{name: "an id listed once", events: 1000, id: func(int) string { return nilUUID }, listsOnce: true, twice: 1, streams: 1050},
		{name: "pairs of ids listed once", events: 1000, id: func(n int) string { return eventID(n / 2) }, listsOnce: true, twice: 1, streams: 20},
		{
			name: "an id listed once, and some left out", events: 100, id: func(int) string { return nilUUID },
			bad: func(n int) bool { return n%20 == 7 }, listsOnce: true, twice: 1, streams: 400,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newEnv(t, *seed, m, slog.New(slog.DiscardHandler))
				w.nowPlan.Store(&plan{settings: rowSettings, workers: 1, latency: 20 * time.Millisecond, listsOnce: c.listsOnce})
				bad := 0
				for n := range c.events {
					k := healthy
					if c.bad != nil && c.bad(n) {
						k = leftOut
						bad++
					}
					w.ledger.published(w.sub.publish(k, &pubsubpb.PubsubMessage{Data: data(n, c.id(n)), Attributes: identity("alpha", "sim")}))
				}
				k := w.start(false, 0)
				for n := range 60 { // prove that the gateway records
					time.Sleep(5 * time.Second)
					w.ledger.published(w.sub.publish(healthy, &pubsubpb.PubsubMessage{Data: data(n, eventID(1_000_000+n)), Attributes: identity("honest", "sim")}))
				}
				time.Sleep(5 * time.Second)
				if bad < 20 { // more take too long for a test
					w.ledger.close()
				}
				k.end()
				again := 0
				for _, n := range w.ledger.records {
					again += n - 1
				}
				t.Logf("%d of %d recorded once more, %d dead-lettered, %d streams", again, c.events, len(w.ledger.deadLetters), k.summary.Batches)
				if len(w.ledger.records) != c.events-bad+60 {
					t.Errorf("%d events are recorded, want %d", len(w.ledger.records), c.events-bad+60)
				}
				if float64(again) > c.twice*float64(c.events) {
					t.Errorf("events were recorded %d times more than once", again)
				}
				if k.summary.Batches > c.streams+60 {
					t.Errorf("%d streams", k.summary.Batches)
				}
				for _, v := range w.violations[:min(5, len(w.violations))] {
					t.Error(v)
				}
			})
		})
	}
}

// TestBadEventBesideAFloodHasItsVerdictSoon has a service send 2,000 events that are never
// recorded, and an honest service one such event among others that are recorded. The honest
// service's event must have its verdict within three minutes, however many of the other
// service's events wait for theirs.
func TestBadEventBesideAFloodHasItsVerdictSoon(t *testing.T) {
	large(t)
	m := metrics.New()
	synctest.Test(t, func(t *testing.T) {
		w := newEnv(t, *seed, m, slog.New(slog.DiscardHandler))
		w.nowPlan.Store(&plan{settings: rowSettings, workers: 1, latency: 50 * time.Millisecond})
		for n := range 2000 {
			w.ledger.published(w.sub.publish(leftOut, &pubsubpb.PubsubMessage{Data: data(n, eventID(n)), Attributes: identity("alpha", "sim")}))
		}
		k := w.start(false, 0)
		var bad *message
		var began time.Time
		took := time.Duration(0)
		for n := 0; took == 0 && n < 1000; n++ {
			w.publishHonest(n)
			if n == 200 {
				bad = w.sub.publish(leftOut, &pubsubpb.PubsubMessage{Data: data(0, eventID(2_000_000)), Attributes: identity("honest", "sim")})
				w.ledger.published(bad)
				began = time.Now()
			}
			time.Sleep(500 * time.Millisecond)
			w.ledger.mu.Lock()
			if bad != nil && len(w.ledger.deadLetters[bad.GetMessageId()]) > 0 {
				took = time.Since(began)
			}
			w.ledger.mu.Unlock()
		}
		w.ledger.mu.Lock()
		t.Logf("dead-lettered after %v, %d in all", took, len(w.ledger.deadLetters))
		w.ledger.mu.Unlock()
		if took == 0 || took > 3*time.Minute {
			t.Errorf("the honest service's bad event was dead-lettered after %v, want three minutes at most", took)
		}
		k.end()
	})
}

// TestEventsBesideAFloodAreNotKeptAsControls has a service send 400 events that the
// gateway's Pub/Sub refuses with their neighbours, and an honest one 20 events every 5 s.
// Some of these are left out beside the others, but none may be kept back as a control
// until all of the others have a verdict. In 60 runs 99 % waited for 18 to 53 s, because
// tries of 400 events take turns with theirs. Controls that are kept back wait for 65 s and
// more.
func TestEventsBesideAFloodAreNotKeptAsControls(t *testing.T) {
	large(t)
	m := metrics.New()
	synctest.Test(t, func(t *testing.T) {
		w := newEnv(t, *seed, m, slog.New(slog.DiscardHandler))
		w.nowPlan.Store(&plan{settings: rowSettings, workers: 1})
		for n := range 400 {
			w.ledger.published(w.sub.publish(leftOut, &pubsubpb.PubsubMessage{Data: data(n, eventID(2*n+1)), Attributes: identity("alpha", "sim")}))
		}
		k := w.start(false, 0)
		var honest []*message
		for n := range 24 {
			for i := range 20 {
				honest = append(honest, w.publishHonest(20*n+i))
			}
			time.Sleep(5 * time.Second)
		}
		time.Sleep(30 * time.Second)
		w.checkWaits(t, honest, 60*time.Second)
		k.end()
	})
}
