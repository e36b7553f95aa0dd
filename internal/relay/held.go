package relay

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// held is one event from its arrival to its settlement. After its arrival, only
// the loop touches it.
type held struct {
	message   *consume.Message
	publisher *publisher  // nil: rejected on arrival
	print     fingerprint // of a valid event
	// lane keeps different events with the same id apart: only events of one
	// lane share a stream, since the gateway's answer has nothing but ids.
	lane     int32
	sent     int32     // submissions
	newest   bool      // of those with its id: it is in byID
	gone     bool      // settled; it may still lie in a batch or a queue
	panicked bool      // its processing failed in a way that must not happen
	followed *followed // the batch that it was submitted with first; nil: it is not traced
	rare     *rare     // nil: it has nothing of it
	older    *held     // with the same id, in another lane
	event    event.Event

	received   time.Time // when it arrived
	prev, next *held     // its neighbours in the order of arrival, while it is among the holdings

	rejection *event.Rejection // why it goes to the dead-letter topic; nil: it does not
}

// rare is what few events have. Tens of thousands may be held, so it is apart.
type rare struct {
	// twins are further deliveries of the same event, settled together with it.
	twins []*consume.Message
	// bulk is the length of an encoding that is not kept, in bytes; 0: it is kept.
	bulk int

	// What speaks against the event.
	suspect      *verdict.Suspect // nil: it was not left out
	alone        bool             // it was left out alone in its payload
	refused      int              // submissions that count against it: failed alone while others were recorded
	refusedAt    uint64           // the moment at which it last failed alone
	failingSince uint64           // with which recording the present failures began, plus one; 0: none
	singled      int              // its failures before which others were recorded, since the one before
}

// eventKey is what the gateway knows of an event: its answers name nothing but ids.
type eventKey struct {
	publisher *publisher
	id        [16]byte
}

// key is that of a valid event.
func (h *held) key() eventKey { return eventKey{h.publisher, h.event.UUID} }

// apart is what few events have.
func (h *held) apart() *rare {
	if h.rare == nil {
		h.rare = new(rare)
	}
	return h.rare
}

// twins are the further deliveries.
func (h *held) twins() []*consume.Message {
	if h.rare == nil {
		return nil
	}
	return h.rare.twins
}

// publisher is an identity with something held.
type publisher struct {
	id       event.Publisher
	known    bool // it is among the publishers
	events   int  // held
	received int  // since the metrics were told
	flying   int  // streams
	service  *serviceMetrics
	waiting  batch.Owner[*publisher, *held]
	first    group            // of lane 0
	lanes    map[int32]*group // the others in which something waits
}

// group is where the events of a lane wait for company.
func (p *publisher) group(lane int32) *group {
	if lane == 0 {
		return &p.first
	}
	g, ok := p.lanes[lane]
	if !ok {
		if p.lanes == nil {
			p.lanes = make(map[int32]*group)
		}
		g = &group{Owner: &p.waiting}
		p.lanes[lane] = g
	}
	return g
}

// left forgets the group of a lane in which nothing waits any more.
func (p *publisher) left(lane int32) {
	if g, ok := p.lanes[lane]; ok && g.Empty() {
		delete(p.lanes, lane)
	}
}

// group are events of one lane.
type group = batch.Group[*publisher, *held]

// serviceMetrics are the counters of one value of the label service.
type serviceMetrics struct {
	label                          string
	received, submitted, duplicate prometheus.Counter
}

// holdings are all events that are held. The loop owns them.
type holdings struct {
	seeds       digests
	byID        map[eventKey]*held // the newest of each publisher and id
	publishers  map[event.Publisher]*publisher
	services    map[string]*serviceMetrics
	first, last *held   // in the order of arrival
	count       int     // events
	twins       int     // further deliveries of them
	recent      *recent // events that were recorded
	buriedIDs   *recent // messages that were dead-lettered
}

// What is remembered of the past, per generation: some 4 MB at most.
const (
	recentEvents  = 1 << 17
	recentBuried  = 1 << 15
	recentMinutes = 5
)

func newHoldings() holdings {
	return holdings{
		seeds:      newDigests(),
		byID:       make(map[eventKey]*held),
		publishers: make(map[event.Publisher]*publisher),
		services:   make(map[string]*serviceMetrics),
		recent:     newRecent(recentEvents),
		buriedIDs:  newRecent(recentBuried),
	}
}

// publisherOf returns the state of an event's identity, new if nothing of it is held.
func (r *Relay) publisherOf(h *held) *publisher {
	p := r.publishers[h.event.Publisher]
	if p == nil {
		p = &publisher{
			id:      h.event.Publisher,
			known:   true,
			service: r.serviceOf(h.event.Publisher.ServiceID),
		}
		p.waiting.Key, p.first.Owner = p, &p.waiting
		r.publishers[p.id] = p
	}
	return p
}

// forget leaves nothing of a publisher that has nothing here any more.
func (r *Relay) forget(p *publisher) {
	if p.known && p.events == 0 && p.flying == 0 {
		p.known = false
		p.count()
		delete(r.publishers, p.id)
	}
}

// count tells the metrics what was received. A counter is far from the processor
// when there are many publishers, so that is not done event by event.
func (p *publisher) count() {
	if p.received > 0 {
		p.service.received.Add(float64(p.received))
		p.received = 0
	}
}

// serviceOf returns the counters of a service. What services.yaml does not list
// shares one label, since anybody can make up names.
func (r *Relay) serviceOf(serviceID string) *serviceMetrics {
	label := metrics.OtherService
	if r.opts.Services.Listed(serviceID) {
		label = serviceID
	}
	s, ok := r.services[label]
	if !ok {
		s = &serviceMetrics{
			label:     label,
			received:  r.m.EventsReceived.WithLabelValues(label),
			submitted: r.m.EventsSubmitted.WithLabelValues(label),
			duplicate: r.m.EventsDuplicate.WithLabelValues(label),
		}
		r.services[label] = s
	}
	return s
}

// serviceOfMessage returns the counters of the service that a message names.
func (r *Relay) serviceOfMessage(m *consume.Message) *serviceMetrics {
	return r.serviceOf(m.Attributes[event.AttrServiceID])
}

// hold enters an event, as the last one.
func (r *Relay) hold(h *held) {
	h.prev = r.last
	if r.last != nil {
		r.last.next = h
	} else {
		r.first = h
	}
	r.last = h
	r.count++
}

// leave takes out an event that was entered.
func (r *Relay) leave(h *held) {
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		r.first = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		r.last = h.prev
	}
	h.prev, h.next = nil, nil
	r.count--
}

// sameID returns the newest event that is held with the publisher and id of this
// one, nil if there is none.
func (r *Relay) sameID(h *held) *held {
	return r.byID[h.key()]
}

// index enters a valid event under its id, in a lane of its own if others with
// the same id are held.
func (r *Relay) index(h, newest *held) {
	if newest != nil {
		h.older, h.lane = newest, newest.lane+1
		newest.newest = false
	}
	r.byID[h.key()] = h
	h.newest = true
	h.publisher.events++
}

// twin returns the same event of the chain, if it is held already.
func twin(newest *held, h *held) *held {
	for at := newest; at != nil; at = at.older {
		if at.print == h.print {
			return at
		}
	}
	return nil
}

// letGo takes an event out of the books' open items. It is settled.
func (r *Relay) letGo(h *held, as fate) {
	h.gone = true
	r.unsuspect(h)
	if h.followed != nil {
		h.followed.settled(as)
		h.followed = nil
	}
	r.twins -= len(h.twins())
	r.leave(h)
	if h.publisher != nil {
		r.unindex(h)
	}
	// It may still lie in a queue.
	h.message, h.event.Wire, h.rare = nil, nil, nil
	if h.publisher == nil {
		return
	}
	h.publisher.events--
	r.forget(h.publisher)
}

func (r *Relay) unindex(h *held) {
	if h.newest {
		delete(r.byID, h.key())
		if h.older != nil {
			r.byID[h.key()] = h.older
			h.older.newest = true
		}
		return
	}
	for at := r.sameID(h); at != nil; at = at.older {
		if at.older == h {
			at.older = h.older
			return
		}
	}
}

// oldestAge is how long the oldest event has been held.
func (r *Relay) oldestAge(now time.Time) time.Duration {
	if r.first == nil {
		return 0
	}
	return now.Sub(r.first.received)
}
