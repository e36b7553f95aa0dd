package chaos_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// Faults of the gateway.
const (
	down           = "gateway: down"
	stopped        = "gateway: not listening"
	failing        = "gateway: fails with Internal"
	busy           = "gateway: busy, and says when to come back"
	denied         = "gateway: permission denied"
	hanging        = "gateway: hangs"
	hangingAtTimes = "gateway: some streams hang"
	silent         = "gateway: records nothing"
	slow           = "gateway: slow"
	cuttingBefore  = "gateway: cuts some streams before recording"
	cuttingMidway  = "gateway: cuts some streams before responding"
	cuttingAfter   = "gateway: cuts some streams after responding"
	revoking       = "gateway: does not know the tokens any more"
)

// Faults of SAMS.
const (
	samsDown = "sams: down"
	samsBusy = "sams: too many requests"
	samsSlow = "sams: slow"
)

// Faults of the connections to Pub/Sub.
const (
	cutting    = "pubsub: connections cut"
	pubsubDown = "pubsub: down"
	stalling   = "pubsub: stalls"
)

// Faults of a worker.
const (
	killing  = "worker: SIGKILL"
	stopping = "worker: SIGTERM"
	freezing = "worker: SIGSTOP"
)

var (
	gatewayFaults = []string{down, stopped, failing, busy, denied, hanging, hangingAtTimes, silent, slow, cuttingBefore, cuttingMidway, cuttingAfter, revoking}
	samsFaults    = []string{samsDown, samsBusy, samsSlow}
	pubsubFaults  = []string{cutting, pubsubDown, stalling}
	workerFaults  = []string{killing, stopping, stopping, freezing, freezing}
)

// faults are the present faults.
type faults struct {
	mu        sync.Mutex
	rng       *rand.Rand
	gatewayIs string
	samsIs    string
}

func (w *faults) draw(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

func (w *faults) oneIn(n int) bool { return w.draw(n) == 0 }

func (w *faults) gatewayNow() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.gatewayIs
}

func (w *faults) samsNow() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.samsIs
}

// fault is a temporary fault.
type fault struct {
	at, length time.Duration
	what       string
}

func (f fault) String() string {
	return fmt.Sprintf("%v+%v %s", f.at.Round(time.Millisecond), f.length.Round(time.Millisecond), f.what)
}

// draft draws successive faults that end before the time is over.
func draft(rng *rand.Rand, kinds []string, pause, length, until time.Duration) []fault {
	var all []fault
	upTo := func(longest time.Duration) time.Duration {
		return longest/5 + time.Duration(rng.Int64N(int64(longest*4/5)))
	}
	for at := upTo(pause); ; {
		f := fault{at, upTo(length), kinds[rng.IntN(len(kinds))]}
		if f.at+f.length > until {
			return all
		}
		all = append(all, f)
		at += f.length + upTo(pause)
	}
}

// inject begins and ends faults, one after the other.
func (w *env) inject(ctx context.Context, began time.Time, faults []fault, s *slot) {
	wait := func(until time.Time) {
		select {
		case <-time.After(time.Until(until)):
		case <-ctx.Done():
		}
	}
	for _, f := range faults {
		if wait(began.Add(f.at)); ctx.Err() != nil {
			return
		}
		name := f.what
		if s != nil {
			name += " " + s.name
		}
		w.note("begins: %s", name)
		end := w.begin(f.what, s)
		w.ledger.met(f.what)
		wait(began.Add(f.at + f.length))
		end()
		w.note("ends: %s", name)
	}
}

// begin begins a fault and returns a function that ends it.
func (w *env) begin(what string, s *slot) (end func()) {
	nothing := func() {}
	switch what {
	case stopped:
		w.gateway.Stop()
		return func() {
			if err := w.gateway.Restart(context.Background()); err != nil {
				w.ledger.violation("the gateway does not listen again: %v", err)
			}
		}
	case revoking:
		w.sams.RevokeAll()
		return nothing
	case samsDown, samsBusy, samsSlow:
		set := func(is string) func() {
			return func() {
				w.faults.mu.Lock()
				defer w.faults.mu.Unlock()
				w.faults.samsIs = is
			}
		}
		set(what)()
		w.sams.RevokeAll() // otherwise no worker would notice
		return set("")
	case cutting:
		w.link.cut()
		return nothing
	case pubsubDown:
		w.link.setDown(true)
		return func() { w.link.setDown(false) }
	case stalling:
		w.link.stall(true)
		return func() { w.link.stall(false) }
	case killing, stopping, freezing:
		p := s.worker()
		if p == nil {
			return nothing
		}
		switch what {
		case killing:
			p.kill()
		case stopping:
			p.terminate()
		case freezing:
			p.signal(syscall.SIGSTOP)
			return func() { p.signal(syscall.SIGCONT) }
		}
		return nothing
	}
	w.faults.mu.Lock()
	defer w.faults.mu.Unlock()
	w.faults.gatewayIs = what
	return func() {
		w.faults.mu.Lock()
		defer w.faults.mu.Unlock()
		w.faults.gatewayIs = ""
	}
}

// onToken returns the fault of SAMS.
func (w *env) onToken(*http.Request) (code int, body string, delay time.Duration, ok bool) {
	switch w.faults.samsNow() {
	case samsDown:
		return http.StatusServiceUnavailable, `{"error":"` + clientSecret + `"}`, 0, true
	case samsBusy:
		return http.StatusTooManyRequests, "", 0, true
	case samsSlow:
		return 0, "", time.Duration(500+w.faults.draw(3000)) * time.Millisecond, true
	}
	return 0, "", 0, false
}
