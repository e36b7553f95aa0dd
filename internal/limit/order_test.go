package limit

import (
	"slices"
	"testing"
	"time"
)

// An order chooses which of the groups that are ready is submitted next.
type order struct {
	name string
	// better reports whether group a goes before group b.
	better func(a, b *group, now time.Time) bool
}

var orders = []order{
	{"in turns", func(a, b *group, _ time.Time) bool { return a.turn < b.turn }},
	{"oldest", func(a, b *group, _ time.Time) bool { return a.oldest().Before(b.oldest()) }},
	{"size × age", func(a, b *group, now time.Time) bool { return a.urgency(now) > b.urgency(now) }},
	{"late first, size × age", func(a, b *group, now time.Time) bool {
		lateA, lateB := now.Sub(a.oldest()) >= time.Second, now.Sub(b.oldest()) >= time.Second
		switch {
		case lateA && lateB:
			return a.oldest().Before(b.oldest())
		case lateA != lateB:
			return lateA
		default:
			return a.urgency(now) > b.urgency(now)
		}
	}},
}

// group is the events of one publisher that wait.
type group struct {
	perSecond float64
	owed      float64 // a part of an event that has not come yet
	waiting   []arrival
	events    int
	inFlight  int
	turn      int // when it became ready
	ready     bool
}

// arrival is events that came at once.
type arrival struct {
	at     time.Time
	events int
}

func (g *group) oldest() time.Time { return g.waiting[0].at }

func (g *group) urgency(now time.Time) float64 {
	return float64(min(g.events, maxBatch)) * now.Sub(g.oldest()).Seconds()
}

// take removes the events of a batch.
func (g *group) take() (batch []arrival, events int) {
	for len(g.waiting) > 0 && events < maxBatch {
		a := &g.waiting[0]
		n := min(a.events, maxBatch-events)
		batch = append(batch, arrival{a.at, n})
		events += n
		if a.events -= n; a.events == 0 {
			g.waiting = g.waiting[1:]
		}
	}
	g.events -= events
	return batch, events
}

// relay is a worker whose publishers send at different rates. Events above its bound
// wait at Pub/Sub, in the order in which they were published.
type relay struct {
	*gateway
	limit    *Limit
	order    order
	groups   []*group
	delay    time.Duration
	hold     int
	inFlight int
	turns    int
	queue    []published
	quiet    []time.Duration // from coming to being recorded, of all groups but the first
	sent     int             // events recorded
	ends     int             // streams
}

type published struct{ group, events int }

const arrivalsEvery = 10 * time.Millisecond

func newRelay(g *gateway, l *Limit, o order, rates []float64) *relay {
	r := &relay{gateway: g, limit: l, order: o, delay: time.Second, hold: 20_000}
	for _, perSecond := range rates {
		// They do not all begin at once.
		r.groups = append(r.groups, &group{perSecond: perSecond, owed: g.rng.Float64()})
	}
	r.publish()
	return r
}

func (r *relay) publish() {
	for i, g := range r.groups {
		g.owed += g.perSecond * arrivalsEvery.Seconds()
		if n := int(g.owed); n > 0 {
			g.owed -= float64(n)
			r.queue = append(r.queue, published{i, n})
		}
	}
	r.receive()
	r.dispatch()
	r.after(arrivalsEvery, r.publish)
}

// receive takes events from Pub/Sub up to the bound on events in flight.
func (r *relay) receive() {
	for len(r.queue) > 0 && r.inFlight < r.hold {
		p := &r.queue[0]
		n := min(p.events, r.hold-r.inFlight)
		g := r.groups[p.group]
		g.waiting = append(g.waiting, arrival{r.now, n})
		g.events += n
		r.inFlight += n
		if p.events -= n; p.events == 0 {
			r.queue = r.queue[1:]
		}
	}
}

func (r *relay) dispatch() {
	for r.limit.InFlight() < r.limit.Limit() {
		g := r.next()
		if g == nil {
			return
		}
		batch, events := g.take()
		g.ready = false
		g.inFlight++
		r.limit.Started(events)
		started := r.now
		r.record(events, func(o Outcome) {
			g.inFlight--
			r.ends++
			r.sent += events
			r.inFlight -= events
			if g != r.groups[0] {
				for _, a := range batch {
					for range a.events {
						r.quiet = append(r.quiet, r.now.Sub(a.at))
					}
				}
			}
			r.receive()
			r.limit.Ended(End{Outcome: o, Latency: r.now.Sub(started), Events: events, Waiting: r.waiting()}, r.now)
			r.dispatch()
		})
	}
}

// isReady reports whether a group is full, or old, or no further events fit in.
func (r *relay) isReady(g *group) bool {
	return g.events > 0 && (g.events >= maxBatch || r.now.Sub(g.oldest()) >= r.delay || 4*r.inFlight >= 3*r.hold)
}

func (r *relay) next() *group {
	var chosen *group
	for _, g := range r.groups {
		if !r.isReady(g) {
			continue
		}
		if !g.ready {
			g.ready = true
			r.turns++
			g.turn = r.turns
		}
		if g.inFlight < max(1, r.limit.Limit()-1) && (chosen == nil || r.order.better(g, chosen, r.now)) {
			chosen = g
		}
	}
	return chosen
}

func (r *relay) waiting() int {
	n := 0
	for _, g := range r.groups {
		if r.isReady(g) {
			n += g.events
		}
	}
	return n
}

// measure lets time pass, and returns events/s, events in a stream, and the 99th
// percentile of the quiet publishers' time in the worker.
func (r *relay) measure(d time.Duration) (perSecond, batch float64, p99 time.Duration) {
	r.quiet, r.sent, r.ends = nil, 0, 0
	r.run(d)
	if len(r.quiet) > 0 {
		slices.Sort(r.quiet)
		p99 = r.quiet[len(r.quiet)*99/100]
	}
	return float64(r.sent) / d.Seconds(), float64(r.sent) / float64(max(1, r.ends)), p99
}

// TestOrdersOfGroups compares the orders in which groups may be submitted, at a gateway that takes
// 250 ms for a payload. Late groups first, and the others by size × age, makes the largest
// batches of the orders with which quiet publishers are not late.
func TestOrdersOfGroups(t *testing.T) {
	long(t)
	noisy := func(loud float64) []float64 {
		rates := []float64{loud}
		for range 100 {
			rates = append(rates, 10)
		}
		return rates
	}
	var uneven []float64 // the n'th publisher sends an n'th of what the first one does
	for n := range 100 {
		uneven = append(uneven, 40_000/float64(n+1))
	}
	for _, load := range []struct {
		name  string
		rates []float64
	}{
		{"1 noisy (20,000/s), 100 quiet", noisy(20_000)},
		{"1 noisy (100,000/s), 100 quiet", noisy(100_000)},
		{"100 uneven publishers", uneven},
	} {
		measure := func(l *Limit, o order) (perSecond, batch float64, p99 time.Duration) {
			g := &gateway{clock: newClock(8), latency: perPayload(250 * time.Millisecond), jitter: 0.1, wire: time.Millisecond}
			r := newRelay(g, l, o, load.rates)
			r.run(6 * time.Second)
			perSecond, batch, p99 = r.measure(10 * time.Second)
			t.Logf("%s, limit %d, %s: %.0f events/s, %.0f in a stream, p99 of the quiet %v", load.name, l.Limit(), o.name, perSecond, batch,
				p99.Round(time.Millisecond))
			return perSecond, batch, p99
		}
		for _, o := range orders {
			measure(Fixed(Start), o)
		}
		rate, batch := 0.0, 0.0 // in turns
		for i, o := range orders {
			perSecond, size, p99 := measure(Adaptive(DefaultMax), o)
			switch i {
			case 0:
				rate, batch = perSecond, size
			case len(orders) - 1:
				if perSecond < 0.95*rate || size < 0.95*batch || p99 > 1500*time.Millisecond {
					t.Errorf("%s, %s: %.0f events/s, %.0f in a stream, p99 of the quiet %v", load.name, o.name, perSecond, size, p99)
				}
			}
		}
	}
}
