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

// inflight is one event from its arrival to its settlement. A goroutine of the receiver
// decodes it; from its arrival on, only the loop reads and writes it.
type inflight struct {
	message     *consume.Message
	received    time.Time
	publisher   *publisher        // nil: rejected on arrival
	fingerprint dedup.Fingerprint // of a valid event
	event       event.Event
	failures    *failureHistory  // what speaks against it; nil: nothing
	rejection   *event.Rejection // why it goes to the dead-letter topic; nil: it does not
	trace       *batchTrace      // of the batch that it was submitted with first; nil: it is not traced
	submissions int32            // streams that carried it
	// droppedSize is the length of an encoding that is not kept, in bytes; 0: it is kept.
	droppedSize int32
	panicked    bool // its decoding panicked
	replayed    bool // its message has a valid replay_count
	settled     bool // it may still be in a batch or a queue

	// The events before and after it in the order of arrival. inflightSet writes them.
	prev, next *inflight
}

// failureHistory is what speaks against an event. Few events have one.
type failureHistory struct {
	suspect  *verdict.Suspect // nil: no answer left the event out
	alone    bool             // an answer to a payload without other events left it out
	refusals refusals
}

// history returns what speaks against the event, to be added to.
func (e *inflight) history() *failureHistory {
	if e.failures == nil {
		e.failures = new(failureHistory)
	}
	return e.failures
}

// suspect returns what is known of an event that an answer left out, nil if none did.
func (e *inflight) suspect() *verdict.Suspect {
	if e.failures == nil {
		return nil
	}
	return e.failures.suspect
}

// publisher is an environment of a service that has events in flight.
type publisher struct {
	id       event.Publisher
	known    bool // it is among the publishers of the inflightSet
	events   int  // in flight and valid
	received int  // events that the metrics do not know of yet
	active   int  // streams
	service  *service
	refusals refusals // of the identity; results writes it
	waiting  group    // its events that wait for their batch to fill
}

// group is the events of a publisher that wait for their batch to fill.
type group = batch.Group[*service, *publisher, *inflight]

// service is the unit of fairness. All environments of a service that services.yaml
// lists share one, and so do all services that it does not list, since anybody can make
// up names. Its label is a value of the metrics' label "service", and it is kept for
// the whole run.
type service struct {
	label                          string
	received, submitted, duplicate prometheus.Counter

	events     int // in flight and valid
	publishers int // its environments with events in flight
	active     int // streams
	begun      int // its suspects that were tried and are not settled
}

// inflightSet has all events that are in flight, and counts them. It knows nothing of
// what becomes of them. The loop owns it.
type inflightSet struct {
	events     map[dedup.Fingerprint]*inflight // the valid ones
	publishers map[event.Publisher]*publisher
	services   map[string]*service // by label
	listed     func(serviceID string) bool
	metrics    *metrics.Metrics

	oldest, newest *inflight // in the order of arrival
	count          int       // events
	// redeliveries are further deliveries of an event, settled together with it. Few
	// events have any. redelivered is how many there are of all events.
	redeliveries   map[*inflight][]*consume.Message
	redelivered    int
	activeServices int // services with valid events
	leftOut        int // events that an answer left out
	undecided      int // of those, events that were left out alone in their payload
}

// newInflightSet returns an empty set. listed says which services services.yaml lists.
func newInflightSet(listed func(serviceID string) bool, m *metrics.Metrics) *inflightSet {
	return &inflightSet{
		events:       make(map[dedup.Fingerprint]*inflight),
		publishers:   make(map[event.Publisher]*publisher),
		services:     make(map[string]*service),
		redeliveries: make(map[*inflight][]*consume.Message),
		listed:       listed,
		metrics:      m,
	}
}

// publisherOf returns the state of an identity, new if no event of it is in flight. If
// no event is added, forget must be called.
func (s *inflightSet) publisherOf(id event.Publisher) *publisher {
	p := s.publishers[id]
	if p == nil {
		p = &publisher{id: id, known: true, service: s.serviceOf(id.ServiceID)}
		p.waiting.Service, p.waiting.Environment = p.service, p
		if p.service.publishers++; p.service.publishers == 1 {
			s.activeServices++
		}
		s.publishers[p.id] = p
	}
	return p
}

// forget removes a publisher that has neither events nor streams.
func (s *inflightSet) forget(p *publisher) {
	if p.known && p.events == 0 && p.active == 0 {
		p.known = false
		if p.service.publishers--; p.service.publishers == 0 {
			s.activeServices--
		}
		p.countReceived()
		delete(s.publishers, p.id)
	}
}

// countReceived adds to the metrics in bulk. Counters are shared between goroutines, so
// adding to one for each event costs more than all else that the set does.
func (p *publisher) countReceived() {
	if p.received > 0 {
		p.service.received.Add(float64(p.received))
		p.received = 0
	}
}

// countReceived brings the metrics up to date.
func (s *inflightSet) countReceived() {
	for _, p := range s.publishers {
		p.countReceived()
	}
}

// serviceOf returns the state of a service.
func (s *inflightSet) serviceOf(serviceID string) *service {
	label := metrics.OtherService
	if s.listed(serviceID) {
		label = serviceID
	}
	of, ok := s.services[label]
	if !ok {
		of = &service{
			label:     label,
			received:  s.metrics.EventsReceived.WithLabelValues(label),
			submitted: s.metrics.EventsSubmitted.WithLabelValues(label),
			duplicate: s.metrics.EventsDuplicate.WithLabelValues(label),
		}
		s.services[label] = of
	}
	return of
}

// serviceOfMessage returns the state of the service that a message names.
func (s *inflightSet) serviceOfMessage(m *consume.Message) *service {
	return s.serviceOf(m.Attributes[event.AttrServiceID])
}

// find returns the event in flight that a delivery is a copy of, nil if there is none.
// Other events may have the same id: only the fingerprint tells them apart.
func (s *inflightSet) find(of dedup.Fingerprint) *inflight { return s.events[of] }

// add enters an event as the newest one. It is valid if it has a publisher.
func (s *inflightSet) add(e *inflight) {
	e.prev = s.newest
	if s.newest != nil {
		s.newest.next = e
	} else {
		s.oldest = e
	}
	s.newest = e
	s.count++
	if e.publisher != nil {
		s.events[e.fingerprint] = e
		e.publisher.events++
		e.publisher.service.events++
	}
}

// addRedelivery enters a further delivery of an event in flight.
func (s *inflightSet) addRedelivery(of *inflight, m *consume.Message) {
	s.redeliveries[of] = append(s.redeliveries[of], m)
	s.redelivered++
}

// remove takes out an event that is settled. It may still be in a batch or a queue, so
// it lets go of the memory of its message.
func (s *inflightSet) remove(e *inflight) {
	s.clear(e)
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		s.oldest = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		s.newest = e.prev
	}
	s.count--
	if n := len(s.redeliveries[e]); n > 0 {
		s.redelivered -= n
		delete(s.redeliveries, e)
	}
	if p := e.publisher; p != nil {
		delete(s.events, e.fingerprint)
		p.events--
		p.service.events--
		s.forget(p)
	}
	e.settled = true
	e.prev, e.next, e.message, e.event.Wire, e.failures = nil, nil, nil, nil, nil
}

// suspect notes that an answer left the event out.
func (s *inflightSet) suspect(e *inflight) {
	if h := e.history(); h.suspect == nil {
		h.suspect = new(verdict.Suspect)
		s.leftOut++
	}
}

// suspectAlone notes that a suspect was left out alone in its payload.
func (s *inflightSet) suspectAlone(e *inflight) {
	if h := e.history(); !h.alone {
		h.alone = true
		s.undecided++
	}
}

// clear notes that an event is no suspect: it is settled, or its rejection is decided.
func (s *inflightSet) clear(e *inflight) {
	suspect := e.suspect()
	if suspect == nil {
		return
	}
	s.leftOut--
	if e.failures.alone {
		s.undecided--
	}
	if suspect.Begun() {
		e.publisher.service.begun--
	}
	e.failures.suspect, e.failures.alone = nil, false
}

// light reports whether a service has less than its share of the events in flight.
func (s *inflightSet) light(of *service) bool { return of.events*s.activeServices < len(s.events) }

// oldestAge is how long the oldest event has been in flight.
func (s *inflightSet) oldestAge(now time.Time) time.Duration {
	if s.oldest == nil {
		return 0
	}
	return now.Sub(s.oldest.received)
}
