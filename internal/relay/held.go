package relay

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dedup"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/verdict"
)

// held is one event from its arrival to its settlement. After its arrival, only
// the loop touches it.
type held struct {
	message     *consume.Message
	publisher   *publisher        // nil: rejected on arrival
	fingerprint dedup.Fingerprint // of a valid event
	sent        int32             // submissions
	gone        bool              // settled; it may still lie in a batch or a queue
	panicked    bool              // its processing failed in a way that must not happen
	followed    *followed         // the batch that it was submitted with first; nil: it is not traced
	rare        *rare             // nil: it has nothing of it
	event       event.Event

	received   time.Time // when it arrived
	prev, next *held     // its neighbours in the order of arrival, while it is among the holdings

	rejection *event.Rejection // why it goes to the dead-letter topic; nil: it does not
}

// rare is what few events have. Tens of thousands may be held, so it is apart.
type rare struct {
	// redeliveries are further deliveries of the same event, settled together with it.
	redeliveries []*consume.Message
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

// apart is what few events have.
func (h *held) apart() *rare {
	if h.rare == nil {
		h.rare = new(rare)
	}
	return h.rare
}

// redeliveries are the further deliveries.
func (h *held) redeliveries() []*consume.Message {
	if h.rare == nil {
		return nil
	}
	return h.rare.redeliveries
}

// publisher is an identity with something held: an environment of a service.
type publisher struct {
	id       event.Publisher
	known    bool // it is among the publishers
	events   int  // held
	received int  // since the metrics were told
	flying   int  // streams
	service  *service
	waiting  group // its events that wait for company
}

// group is the events of a publisher that wait for company.
type group = batch.Group[*service, *publisher, *held]

// service is what takes turns first, whatever environments its publishers name: a
// service that services.yaml lists. All others are one together, since anybody can
// make up names. It is also a value of the label service, and never forgotten.
type service struct {
	label                          string
	received, submitted, duplicate prometheus.Counter

	events     int // held, that are valid
	publishers int // its environments with something held
	flying     int // streams
	begun      int // its events that were left out, tried, and are not settled
}

// holdings are all events that are held. The loop owns them.
type holdings struct {
	hasher         dedup.Hasher
	events         map[dedup.Fingerprint]*held // that are valid
	publishers     map[event.Publisher]*publisher
	services       map[string]*service
	first, last    *held // in the order of arrival
	count          int   // events
	redelivered    int   // further deliveries of them
	recordedEvents *dedup.Cache
	deadLettered   *dedup.Cache // messages
}

// How much of the past is remembered for redeliveries, in entries of a generation and
// minutes: some 10 MB at most, of which the recorded events have most.
const (
	maxRecorded       = 1 << 17
	maxDeadLettered   = 1 << 15
	generationMinutes = 5
)

func newHoldings() holdings {
	return holdings{
		hasher:         dedup.NewHasher(),
		events:         make(map[dedup.Fingerprint]*held),
		publishers:     make(map[event.Publisher]*publisher),
		services:       make(map[string]*service),
		recordedEvents: dedup.NewCache(maxRecorded),
		deadLettered:   dedup.NewCache(maxDeadLettered),
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
		p.waiting.Service, p.waiting.Environment = p.service, p
		if p.service.publishers++; p.service.publishers == 1 {
			r.activeServices++
		}
		r.publishers[p.id] = p
	}
	return p
}

// forget leaves nothing of a publisher that has nothing here any more.
func (r *Relay) forget(p *publisher) {
	if p.known && p.events == 0 && p.flying == 0 {
		p.known = false
		if p.service.publishers--; p.service.publishers == 0 {
			r.activeServices--
		}
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

// serviceOf returns the state of a service. What services.yaml does not list shares
// one.
func (r *Relay) serviceOf(serviceID string) *service {
	label := metrics.OtherService
	if r.opts.Services.Listed(serviceID) {
		label = serviceID
	}
	s, ok := r.services[label]
	if !ok {
		s = &service{
			label:     label,
			received:  r.m.EventsReceived.WithLabelValues(label),
			submitted: r.m.EventsSubmitted.WithLabelValues(label),
			duplicate: r.m.EventsDuplicate.WithLabelValues(label),
		}
		r.services[label] = s
	}
	return s
}

// serviceOfMessage returns the state of the service that a message names.
func (r *Relay) serviceOfMessage(m *consume.Message) *service {
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

// same returns the event that a further delivery of it has found in flight, nil if it
// is none. Other events may have the same id: only the fingerprint tells them apart.
func (r *Relay) same(h *held) *held { return r.events[h.fingerprint] }

// index enters a valid event.
func (r *Relay) index(h *held) {
	r.events[h.fingerprint] = h
	h.publisher.events++
	h.publisher.service.events++
}

// letGo takes an event out of the books' open items. It is settled.
func (r *Relay) letGo(h *held, as fate) {
	h.gone = true
	r.unsuspect(h)
	if h.followed != nil {
		h.followed.settled(as)
		h.followed = nil
	}
	r.redelivered -= len(h.redeliveries())
	r.leave(h)
	if h.publisher != nil {
		delete(r.events, h.fingerprint)
	}
	// It may still lie in a queue.
	h.message, h.event.Wire, h.rare = nil, nil, nil
	if h.publisher == nil {
		return
	}
	h.publisher.events--
	h.publisher.service.events--
	r.forget(h.publisher)
}

// oldestAge is how long the oldest event has been held.
func (r *Relay) oldestAge(now time.Time) time.Duration {
	if r.first == nil {
		return 0
	}
	return now.Sub(r.first.received)
}
