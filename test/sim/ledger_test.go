package sim_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// kind is the result that a message must have.
type kind int

const (
	healthy     kind = iota // always recorded
	malformed               // dead-lettered before sending
	leftOut                 // never recorded, and the gateway does not say why
	refused                 // refused by the gateway with InvalidArgument
	undecodable             // makes the gateway fail with Internal
	foreign                 // of the identity that the gateway refuses
	panicking               // its processing panics at first
)

var reasonOf = map[kind]event.Reason{
	malformed:   event.MalformedPayload,
	leftOut:     event.GatewayRejected,
	refused:     event.GatewayRefused,
	undecodable: event.GatewayRefused,
	foreign:     event.GatewayRefused,
}

// variant identifies an event, however it was delivered.
type variant struct {
	publisher event.Publisher
	id        string
	wire      string
}

// ledger keeps an independent account of the published events and their results.
type ledger struct {
	w *env

	mu          sync.Mutex
	kinds       map[variant]kind
	of          map[string]variant // by message id
	records     map[variant]int
	first       map[variant]time.Time // when it was recorded for the first time
	deadLetters map[string][]string   // reasons, by the original message's id
	omitted     map[variant]bool      // answers that got lost once
	listed      map[*worker]map[variant]time.Time
}

func newLedger(w *env) *ledger {
	return &ledger{w: w, kinds: map[variant]kind{}, of: map[string]variant{}, records: map[variant]int{}, first: map[variant]time.Time{}, deadLetters: map[string][]string{}, omitted: map[variant]bool{}, listed: map[*worker]map[variant]time.Time{}}
}

func variantOf(p event.Publisher, e *event.Event) variant {
	return variant{p, string(e.ID()), string(e.Wire)}
}

// published enters a message.
func (l *ledger) published(m *message) {
	e, rejection := l.w.decoder.Decode(event.Message{
		ID: m.GetMessageId(), PublishTime: m.GetPublishTime().AsTime(), Data: m.GetData(), Attributes: m.GetAttributes(),
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if rejection != nil {
		if m.kind != malformed {
			l.w.violation("a %d is rejected: %v", m.kind, rejection)
		}
		return
	}
	v := variantOf(e.Publisher, &e)
	l.kinds[v], l.of[m.GetMessageId()] = m.kind, v
}

func (l *ledger) kindOf(p event.Publisher, e *event.Event) kind {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, ok := l.kinds[variantOf(p, e)]
	if !ok {
		l.w.violation("an event that nobody published: %s", e.ID())
	}
	return k
}

func (l *ledger) recorded(p event.Publisher, e *event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := variantOf(p, e)
	if l.records[v]++; l.records[v] == 1 {
		l.first[v] = time.Now()
	}
}

// answered enters an answer that a worker got. For some minutes the worker must not submit
// the recorded events again.
func (l *ledger) answered(by *worker, b submit.Batch, listed []bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listed[by] == nil {
		l.listed[by] = map[variant]time.Time{}
	}
	now := time.Now()
	for i, e := range b.Events {
		v := variantOf(b.Publisher, e)
		if at, ok := l.listed[by][v]; ok && now.Sub(at) < 4*time.Minute {
			l.w.violation("the event %s was submitted again %v after it had been listed", e.ID(), now.Sub(at))
		}
		if listed != nil && listed[i] {
			l.listed[by][v] = now
		}
	}
}

// omitOnce reports whether the answer about a recorded event gets lost.
func (l *ledger) omitOnce(p event.Publisher, e *event.Event) bool {
	if l.w.draw(30) > 0 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v := variantOf(p, e)
	if l.omitted[v] {
		return false
	}
	l.omitted[v] = true
	l.w.met("recorded, but left out of the answer")
	return true
}

// batch checks the rules of every stream.
func (l *ledger) batch(b submit.Batch) {
	same := map[variant]bool{}
	for _, e := range b.Events {
		v := variantOf(b.Publisher, e)
		if same[v] {
			l.w.violation("the event %s is twice in a stream", e.ID())
		}
		same[v] = true
		if e.Publisher != b.Publisher {
			l.w.violation("an event of %v in a stream of %v", e.Publisher, b.Publisher)
		}
	}
}

// acked checks that an acknowledged message is recorded or dead-lettered.
func (l *ledger) acked(m *message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id := m.GetMessageId()
	v, valid := l.of[id]
	switch {
	case len(l.deadLetters[id]) > 0:
	case valid && l.records[v] > 0:
	case valid && l.sameDeadLettered(v):
	default:
		l.w.violation("message %s (%v) was acknowledged, and neither recorded nor dead-lettered", id, m.kind)
	}
}

// sameDeadLettered reports whether another delivery of the same event is dead-lettered.
func (l *ledger) sameDeadLettered(v variant) bool {
	for id := range l.deadLetters {
		if other, ok := l.of[id]; ok && other == v {
			return true
		}
	}
	return false
}

// deadLettered enters dead-lettered messages.
func (l *ledger) deadLettered(messages []*pubsubpb.PubsubMessage) {
	for _, m := range messages {
		a := m.GetAttributes()
		id, reason := a[dlq.AttrMessageID], a[dlq.AttrReason]
		original := l.w.sub.get(id)
		if original == nil {
			l.w.violation("a dead-lettered message of an unknown message %q", id)
			continue
		}
		if want := reasonOf[original.kind]; string(want) != reason {
			l.w.violation("message %s (%v) was dead-lettered as %s: %s", id, original.kind, reason, a[dlq.AttrDetail])
		}
		if string(original.GetData()) != string(m.GetData()) {
			l.w.violation("the dead-lettered message of %s has other data", id)
		}
		l.mu.Lock()
		l.deadLetters[id] = append(l.deadLetters[id], reason)
		l.mu.Unlock()
	}
}

// close checks the account at the very end, after all faults have ended and a last worker
// has drained the subscription.
func (l *ledger) close() {
	for _, m := range l.w.sub.unacked() {
		l.w.violation("message %s (%v) is left in the subscription", m.GetMessageId(), m.kind)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.w.sub.order {
		id := m.GetMessageId()
		v, valid := l.of[id]
		recorded := valid && l.records[v] > 0
		deadLettered := len(l.deadLetters[id]) > 0 || (valid && l.sameDeadLettered(v))
		wantRecorded := m.kind == healthy || m.kind == panicking
		if recorded != wantRecorded || deadLettered == wantRecorded {
			l.w.violation("message %s (%v): recorded %t, dead-lettered %t", id, m.kind, recorded, deadLettered)
		}
	}
}

func (s *subscription) get(id string) *message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// data returns an event's data. The same n is the same event.
func data(n int, id string) []byte {
	e := map[string]any{"feature": "sim.event", "action": "happened", "metadata": map[string]int{"n": n}}
	if id != "" {
		e["id"] = id
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return b
}

func eventID(n int) string { return fmt.Sprintf("019a0000-0000-7000-8000-%012d", n) }

// long is a time after which every worker must have noticed an outage.
const long = 30 * time.Second
