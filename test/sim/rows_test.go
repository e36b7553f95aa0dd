package sim_test

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"

	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// row is a situation of the real gateway and its expected outcome: one drain of a backlog,
// in simulated time.
type row struct {
	name   string
	plan   plan
	events int
	bad    func(n int) bool // never recorded
	window time.Duration    // of receiving; 0 means an hour

	within   time.Duration // the drain ends
	atLeast  time.Duration // for which the drain goes on
	fails    bool          // with an error
	released int           // at the end, because they are undecided
	batches  int           // bound; 0 means none
	anyEnd   bool          // only requires that no healthy event is dead-lettered
}

var rowSettings = settings{batchEvents: 1000, batchDelay: 100 * time.Millisecond, concurrency: adapts, rejectAfter: 5, outstanding: 20_000}

func one(n int) bool             { return n == 13 }
func nth(bad int) func(int) bool { return func(n int) bool { return n == bad } }
func everyHundred(n int) bool    { return n%100 == 1 }
func oneInHundred(n int) bool    { return n%100 == 2 } // left out without its neighbours

func always(share int) plan {
	return plan{lossy: window{0, 24 * time.Hour}, lostShare: share}
}

var rowsOfTheGateway = []row{
	{name: "1 event among 1,000 that Pub/Sub refuses", events: 1000, bad: one, within: 3 * time.Minute},
	{name: "1 event among 150 that Pub/Sub refuses", events: 150, bad: one, within: 3 * time.Minute},
	{name: "1 event among 60 that Pub/Sub refuses", events: 60, bad: one, within: 3 * time.Minute},
	{name: "1 event among 20 that Pub/Sub refuses", events: 20, bad: nth(17), within: 3 * time.Minute},
	{name: "1 event among 12 that Pub/Sub refuses", events: 12, bad: nth(9), within: 3 * time.Minute},
	{name: "1 event among 1,000 that is left out alone", events: 1000, bad: nth(14), within: 3 * time.Minute},
	{name: "1 event among 150 that is left out alone", events: 150, bad: nth(14), within: 3 * time.Minute},
	{name: "1 event among 20 that is left out alone", events: 20, bad: nth(14), within: 3 * time.Minute},
	{name: "1 event among 12 that is left out alone", events: 12, bad: nth(8), within: 3 * time.Minute},
	{name: "1 % that Pub/Sub refuses", events: 4000, bad: everyHundred, within: 3 * time.Minute},
	{name: "1 % never recorded, the others at once", events: 4000, bad: oneInHundred, within: 3 * time.Minute},
	{name: "1 % never recorded, the others in 100 to 500 ms", events: 4000, bad: oneInHundred, plan: plan{publishing: true}, within: 3 * time.Minute},
	{name: "1 % that Pub/Sub refuses, the others in 100 to 500 ms", events: 4000, bad: everyHundred, plan: plan{publishing: true}, within: 3 * time.Minute},
	{name: "50 % of publish requests fail for 5 s", events: 4000, plan: plan{lossy: window{0, 5 * time.Second}, lostShare: 50}, within: 3 * time.Minute},
	{name: "80 % of publish requests fail for 8 s", events: 4000, plan: plan{lossy: window{0, 8 * time.Second}, lostShare: 80}, within: 3 * time.Minute},
	{name: "30 % fail for the whole run", events: 2000, plan: always(30), within: 5 * time.Minute},
	{name: "50 % fail for the whole run", events: 2000, plan: always(50), within: 10 * time.Minute},
	{name: "70 % fail for minutes, one event a request", events: 2000, plan: plan{lossy: window{0, 10 * time.Minute}, lostShare: 70, settings: settings{batchEvents: 1}}, within: 10 * time.Minute},
	{name: "80 % fail for the whole run", events: 3000, plan: always(80), window: 9 * time.Minute, within: 10 * time.Minute, anyEnd: true},
	{name: "everything fails for a minute", events: 4000, plan: plan{lossy: window{0, time.Minute}, lostShare: 100}, within: 3 * time.Minute, batches: 300},
	{name: "nothing is recorded for a minute, and the gateway is unavailable meanwhile", events: 4000, plan: plan{
		lossy: window{0, time.Minute}, lostShare: 100, down: window{20 * time.Second, 30 * time.Second}, downCode: codes.Unavailable,
	}, within: 3 * time.Minute, batches: 300},
	{name: "one of three instances publishes nothing", events: 8000, plan: plan{halfBroken: window{0, 24 * time.Hour}}, within: 2 * time.Minute},
	{name: "one event, never recorded, and nothing else", events: 1, bad: func(int) bool { return true }, atLeast: 2 * time.Minute, within: 4 * time.Minute, released: 1, fails: true},
	{name: "ten of forty never recorded and never condemned", events: 40, bad: func(n int) bool { return n%4 == 2 }, plan: plan{settings: settings{rejectAfter: -1}}, within: 10 * time.Minute, released: 10},
	{name: "eleven of forty-four never recorded and never condemned", events: 44, bad: func(n int) bool { return n%4 == 2 }, plan: plan{settings: settings{rejectAfter: -1}}, within: 10 * time.Minute, released: 11, fails: true},
}

func TestKnownGatewayFailures(t *testing.T) {
	large(t)
	log := slog.New(slog.DiscardHandler)
	if *trace {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	m := metrics.New()
	for _, c := range rowsOfTheGateway {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newEnv(t, *seed, m, log)
				c.run(t, w)
				for _, v := range w.violations[:min(5, len(w.violations))] {
					t.Error(v)
				}
			})
		})
	}
}

func (c row) run(t *testing.T, w *env) {
	p := c.plan
	changed := p.settings
	p.settings = rowSettings
	if changed.rejectAfter < 0 {
		p.settings.rejectAfter = 0
	}
	if changed.batchEvents > 0 {
		p.settings.batchEvents = changed.batchEvents
	}
	p.workers = 1
	w.nowPlan.Store(&p)
	for n := range c.events {
		k := healthy
		if c.bad != nil && c.bad(n) {
			k = leftOut
		}
		w.ledger.published(w.sub.publish(k, &pubsubpb.PubsubMessage{
			Data: data(n, eventID(n)), Attributes: map[string]string{"service_id": "alpha", "service_environment": "sim"},
		}))
	}
	if c.window == 0 {
		c.window = time.Hour
	}
	began := time.Now()
	k := w.start(true, c.window)
	<-k.done
	took := time.Since(began)
	t.Logf("%v: %+v, %v", took, k.summary, k.err)
	if took < c.atLeast || took > c.within {
		t.Errorf("took %v, want %v to %v", took, c.atLeast, c.within)
	}
	if c.batches > 0 && k.summary.Batches > c.batches {
		t.Errorf("%d streams, want %d at most: is the breaker open?", k.summary.Batches, c.batches)
	}
	if (k.err != nil) != c.fails && !c.anyEnd {
		t.Errorf("ended with %v", k.err)
	}
	if !c.anyEnd {
		if k.summary.Released != c.released || k.summary.Ended != relay.Drained {
			t.Errorf("%q, %d released, want %d", k.summary.Ended, k.summary.Released, c.released)
		}
		if got := len(w.sub.unacked()); got != c.released {
			t.Errorf("%d events are left", got)
		}
	}
	// A second worker decides about the rest, after all faults have ended.
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	bad := 0
	for n := range c.events {
		if c.bad != nil && c.bad(n) {
			bad++
		}
	}
	if got := len(w.ledger.deadLetters); !c.anyEnd && got != bad-c.released {
		t.Errorf("%d are dead-lettered, want %d", got, bad-c.released)
	}
	for id, reasons := range w.ledger.deadLetters {
		if got := w.sub.get(id).kind; got != leftOut {
			t.Errorf("a message of kind %d was dead-lettered: %v", got, reasons)
		}
	}
}

// TestBadEventInQuietTraffic has one event that is never recorded, and one other event
// every few seconds. That is enough evidence for a verdict without a person's help.
func TestBadEventInQuietTraffic(t *testing.T) {
	m := metrics.New()
	synctest.Test(t, func(t *testing.T) {
		w := newEnv(t, *seed, m, slog.New(slog.DiscardHandler))
		w.nowPlan.Store(&plan{settings: rowSettings, workers: 1})
		publish := func(k kind, n int) {
			w.ledger.published(w.sub.publish(k, &pubsubpb.PubsubMessage{
				Data: data(n, eventID(n)), Attributes: map[string]string{"service_id": "alpha", "service_environment": "sim"},
			}))
		}
		k := w.start(false, 0)
		publish(leftOut, 1)
		for n := range 40 {
			time.Sleep(5 * time.Second)
			publish(healthy, 100+n)
		}
		time.Sleep(5 * time.Second)
		w.ledger.close()
		k.end()
		if k.err != nil || len(w.violations) > 0 {
			t.Errorf("%v, %v", k.err, fmt.Sprint(w.violations))
		}
	})
}

// TestBadEventIsKeptIfNoneMayBeRejected has the same, with WORKER_REJECT_AFTER=0: the event
// is never dead-lettered.
func TestBadEventIsKeptIfNoneMayBeRejected(t *testing.T) {
	m := metrics.New()
	synctest.Test(t, func(t *testing.T) {
		w := newEnv(t, *seed, m, slog.New(slog.DiscardHandler))
		p := plan{settings: rowSettings, workers: 1}
		p.settings.rejectAfter = 0
		w.nowPlan.Store(&p)
		w.ledger.published(w.sub.publish(leftOut, &pubsubpb.PubsubMessage{Data: data(1, eventID(1)), Attributes: identity("alpha", "sim")}))
		k := w.start(false, 0)
		for n := range 60 {
			time.Sleep(5 * time.Second)
			w.ledger.published(w.sub.publish(healthy, &pubsubpb.PubsubMessage{Data: data(n, eventID(100+n)), Attributes: identity("alpha", "sim")}))
		}
		time.Sleep(5 * time.Second)
		k.end()
		w.ledger.mu.Lock()
		defer w.ledger.mu.Unlock()
		if len(w.ledger.deadLetters) > 0 || len(w.ledger.records) != 60 || k.err != nil {
			t.Errorf("%d dead-lettered, %d recorded, want 0 and 60; %v", len(w.ledger.deadLetters), len(w.ledger.records), k.err)
		}
	})
}

// TestEventsInFlightAreBounded has a Pub/Sub that keeps no flow control, and a gateway that
// takes 5 s for an answer. The environment checks how many events are in flight.
func TestEventsInFlightAreBounded(t *testing.T) {
	m := metrics.New()
	synctest.Test(t, func(t *testing.T) {
		w := newEnv(t, *seed, m, slog.New(slog.DiscardHandler))
		p := plan{settings: rowSettings, workers: 1, noFlow: true, latency: 5 * time.Second}
		p.settings.outstanding = 100
		w.nowPlan.Store(&p)
		for n := range 2000 {
			w.ledger.published(w.sub.publish(healthy, &pubsubpb.PubsubMessage{Data: data(n, eventID(n)), Attributes: identity("alpha", "sim")}))
		}
		k := w.start(true, time.Hour)
		<-k.done
		if k.err != nil || k.summary.Submitted != 2000 {
			t.Errorf("%+v, %v", k.summary, k.err)
		}
		for _, v := range w.violations[:min(5, len(w.violations))] {
			t.Error(v)
		}
	})
}

// TestBrokenInstanceHalvesTheRateAtMost compares how fast a backlog is recorded while one
// of three instances of the gateway publishes nothing with the rate while all three do. It
// must be at least half of that.
func TestBrokenInstanceHalvesTheRateAtMost(t *testing.T) {
	large(t)
	m := metrics.New()
	const events = 12_000
	took := map[bool]time.Duration{}
	for _, broken := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newEnv(t, *seed, m, slog.New(slog.DiscardHandler))
			p := plan{settings: rowSettings, workers: 1}
			p.settings.batchEvents, p.settings.concurrency = 100, 2
			if broken {
				p.halfBroken = window{0, 24 * time.Hour}
			}
			w.nowPlan.Store(&p)
			for n := range events {
				w.ledger.published(w.sub.publish(healthy, &pubsubpb.PubsubMessage{
					Data: data(n, eventID(n)), Attributes: map[string]string{"service_id": "alpha", "service_environment": "sim"},
				}))
			}
			k := w.start(true, time.Hour)
			began := time.Now()
			for recorded := 0; recorded < events*95/100; {
				time.Sleep(10 * time.Millisecond)
				w.ledger.mu.Lock()
				recorded = len(w.ledger.records)
				w.ledger.mu.Unlock()
			}
			took[broken] = time.Since(began)
			<-k.done
			if k.err != nil || k.summary.Submitted != events {
				t.Errorf("%+v, %v", k.summary, k.err)
			}
		})
	}
	t.Logf("95 %% of %d events in %v, beside a broken instance in %v", events, took[false], took[true])
	if took[true] > 2*took[false] {
		t.Errorf("took %v, and %v when all is well: less than half the rate", took[true], took[false])
	}
}

// large skips a run with thousands of events in quick tests. With the race detector it
// takes half a minute, and the seeds cover the same code.
func large(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("a run with thousands of events")
	}
}
