package limit

import (
	"container/heap"
	"math"
	"math/rand/v2"
	"time"
)

// clock runs a simulation in virtual time: the next action is the one that is due first.
type clock struct {
	now    time.Time
	queue  timeline
	serial int
	rng    *rand.Rand
}

type occurrence struct {
	at     time.Time
	serial int
	do     func()
}

type timeline []occurrence

func (q timeline) Len() int { return len(q) }
func (q timeline) Less(i, j int) bool {
	if q[i].at.Equal(q[j].at) {
		return q[i].serial < q[j].serial
	}
	return q[i].at.Before(q[j].at)
}
func (q timeline) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *timeline) Push(x any)   { *q = append(*q, x.(occurrence)) }
func (q *timeline) Pop() any {
	last := len(*q) - 1
	o := (*q)[last]
	*q = (*q)[:last]
	return o
}

func newClock(seed uint64) *clock {
	return &clock{now: time.Unix(1_800_000_000, 0), rng: rand.New(rand.NewPCG(seed, seed))}
}

func (w *clock) after(d time.Duration, do func()) {
	w.serial++
	heap.Push(&w.queue, occurrence{w.now.Add(d), w.serial, do})
}

// run lets so much time pass.
func (w *clock) run(d time.Duration) {
	end := w.now.Add(d)
	for len(w.queue) > 0 && !w.queue[0].at.After(end) {
		o := heap.Pop(&w.queue).(occurrence)
		w.now = o.at
		o.do()
	}
	w.now = end
}

// gateway takes a while for each payload. Beyond its capacity it refuses streams, or
// has them wait.
type gateway struct {
	*clock
	latency  func(events int) time.Duration
	jitter   float64 // standard deviation of the latency's logarithm
	failing  float64 // share of the streams that fail
	capacity int     // streams at once; 0: any number
	waits    bool    // streams beyond the capacity wait for their turn
	wire     time.Duration
	busy     int
	waiting  []func()
}

func (g *gateway) record(events int, done func(Outcome)) {
	g.after(g.wire/2, func() {
		reply := func(o Outcome) { g.after(g.wire/2, func() { done(o) }) }
		begin := func() {
			took := g.latency(events)
			if g.jitter > 0 {
				took = time.Duration(float64(took) * math.Exp(g.jitter*g.rng.NormFloat64()))
			}
			outcome := Answered
			if g.failing > 0 && g.rng.Float64() < g.failing {
				outcome = Failed
			}
			g.after(took, func() {
				g.busy--
				g.admit()
				reply(outcome)
			})
		}
		switch {
		case g.capacity == 0 || g.busy < g.capacity:
			g.busy++
			begin()
		case g.waits:
			g.waiting = append(g.waiting, begin)
		default:
			reply(Refused)
		}
	})
}

// admit begins what waits, as far as the capacity goes.
func (g *gateway) admit() {
	for len(g.waiting) > 0 && g.busy < g.capacity {
		begin := g.waiting[0]
		g.waiting = g.waiting[1:]
		g.busy++
		begin()
	}
}

// perPayload is a gateway that takes the same time for each payload, whatever its size.
func perPayload(d time.Duration) func(int) time.Duration {
	return func(int) time.Duration { return d }
}

// per250 is one that publishes 250 events of a payload at once.
func per250(d time.Duration) func(int) time.Duration {
	return func(events int) time.Duration { return time.Duration((events+249)/250) * d }
}

// worker submits what it holds of its publishers, in turns. It always holds as much as
// it may, as under a full backlog, unless rate is set.
type worker struct {
	*gateway
	limit      *Limit
	publishers []publisher
	hold       int // events, at most
	inFlight   int
	ready      int // those in flight that no stream has
	turn       int
	perStream  time.Duration // CPU
	perEvent   time.Duration
	cpuFree    time.Time

	recorded, streams, refused, failed int
}

type publisher struct {
	events, inFlight int
}

const maxBatch = 1000

func newWorker(g *gateway, l *Limit, publishers int) *worker {
	w := &worker{gateway: g, limit: l, publishers: make([]publisher, publishers), hold: 20_000,
		perStream: 60 * time.Microsecond, perEvent: 3 * time.Microsecond}
	w.fill()
	w.dispatch()
	return w
}

// fill receives events up to the bound, each of a publisher by chance.
func (w *worker) fill() {
	for ; w.inFlight < w.hold; w.inFlight++ {
		w.publishers[w.rng.IntN(len(w.publishers))].events++
		w.ready++
	}
}

func (w *worker) dispatch() {
	for w.limit.InFlight() < w.limit.Limit() {
		p := w.next()
		if p == nil {
			return
		}
		w.submit(p)
	}
}

// next is the publisher whose turn it is.
func (w *worker) next() *publisher {
	if w.ready == 0 {
		return nil
	}
	for range w.publishers {
		p := &w.publishers[w.turn%len(w.publishers)]
		w.turn++
		if p.events > 0 && p.inFlight < max(1, w.limit.Limit()-1) {
			return p
		}
	}
	return nil
}

func (w *worker) submit(p *publisher) {
	n := min(p.events, maxBatch)
	p.events -= n
	w.ready -= n
	p.inFlight++
	w.streams++
	w.limit.Started(n)
	started := w.now
	if w.cpuFree.Before(w.now) {
		w.cpuFree = w.now
	}
	w.cpuFree = w.cpuFree.Add(w.perStream + time.Duration(n)*w.perEvent)
	w.after(w.cpuFree.Sub(w.now), func() {
		w.record(n, func(o Outcome) {
			p.inFlight--
			switch o {
			case Answered:
				w.recorded += n
				w.inFlight -= n
			case Refused:
				w.refused++
				p.events += n
				w.ready += n
			default:
				w.failed++
				p.events += n
				w.ready += n
			}
			w.fill()
			w.limit.Ended(End{Outcome: o, Latency: w.now.Sub(started), Events: n, Bytes: 370 * n, Waiting: w.ready}, w.now)
			w.dispatch()
		})
	})
}

// span is what a worker did in a while.
type span struct {
	perSecond float64 // events recorded
	refused   float64 // share of the streams
	streams   int
}

// measure lets time pass.
func (w *worker) measure(d time.Duration) span {
	recorded, streams, refused := w.recorded, w.streams, w.refused
	w.run(d)
	s := span{perSecond: float64(w.recorded-recorded) / d.Seconds(), streams: w.streams - streams}
	if s.streams > 0 {
		s.refused = float64(w.refused-refused) / float64(s.streams)
	}
	return s
}
