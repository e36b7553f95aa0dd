package chaos_test

import (
	"bytes"
	"fmt"
	"maps"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// kind is the result that a message must have.
type kind int

const (
	healthy        kind = iota // always recorded
	unsupported                // this and the following are always rejected
	unknownService             // before they are sent
	malformed
	invalid
	forbidden
	leftOut     // never recorded, and the gateway does not say why
	refused     // refused by the gateway with InvalidArgument
	undecodable // makes the gateway fail with Internal
)

var reasons = map[kind]string{
	unsupported:    "unsupported_schema",
	unknownService: "unknown_service",
	malformed:      "malformed_payload",
	invalid:        "invalid_event",
	forbidden:      "policy_violation",
	leftOut:        "gateway_rejected",
	refused:        "gateway_refused",
	undecodable:    "gateway_refused",
}

// entry is one event and its results. It may be in several messages.
type entry struct {
	n       int // unique; in the event's metadata
	kind    kind
	message *pubsubpb.PubsubMessage
	id      string // the event's; empty if it is derived from the message
	private bool   // it has private metadata
	quiet   bool   // published when no fault could touch it

	at         time.Time      // time of publishing
	messages   map[string]int // by message id: the number of its dead-lettered messages
	records    int
	recordedID map[string]bool
}

// ledger keeps an independent account of the published events and their results.
type ledger struct {
	mu         sync.Mutex
	entries    []*entry             // by n
	byMessage  map[string]*entry    // by message id
	unjudged   []testenv.DeadLetter // not yet judged
	violations []string
	count      map[string]int
}

func newLedger() *ledger {
	return &ledger{byMessage: map[string]*entry{}, count: map[string]int{}}
}

func (l *ledger) violation(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.violate(format, args...)
}

// violate is violation for a caller that has locked mu.
func (l *ledger) violate(format string, args ...any) {
	if len(l.violations) < 100 {
		l.violations = append(l.violations, fmt.Sprintf(format, args...))
	}
}

func (l *ledger) met(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count[what]++
}

func (l *ledger) counted(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count[what]
}

// enter adds an entry before its event is published, because it may be recorded before the
// publisher knows the message's id.
func (l *ledger) enter(draw func(n int) *entry) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := draw(len(l.entries))
	e.n, e.at, e.messages, e.recordedID = len(l.entries), time.Now(), map[string]int{}, map[string]bool{}
	l.entries = append(l.entries, e)
	return e
}

func (l *ledger) published(entries []*entry, messageIDs []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range entries {
		e.messages[messageIDs[i]] = 0
		l.byMessage[messageIDs[i]] = e
	}
	l.count["messages published"] += len(entries)
}

// of returns the entry of an event that the gateway sees.
func (l *ledger) of(e *gatewayserver.Event) *entry {
	n, ok := e.GetParameters().GetMetadata()["n"]
	if !ok || n < 0 || int(n) >= len(l.entries) {
		l.violate("nobody published the event %v", e)
		return &entry{messages: map[string]int{}, recordedID: map[string]bool{}, message: &pubsubpb.PubsubMessage{}}
	}
	return l.entries[int(n)]
}

// kinds returns the kinds of a payload's events.
func (l *ledger) kinds(events []*gatewayserver.Event) []kind {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Different events with one id may share a stream; redeliveries may not.
	type sent struct {
		n  int
		id string
	}
	seen := make(map[sent]bool, len(events))
	all := make([]kind, len(events))
	for i, e := range events {
		of := l.of(e)
		s := sent{of.n, e.GetId()}
		if seen[s] {
			l.violate("event %d with the id %s is twice in a stream", s.n, s.id)
		}
		seen[s] = true
		all[i] = of.kind
	}
	return all
}

// recorded enters the events that the gateway has recorded.
func (l *ledger) recorded(r gatewayserver.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.of(r.Event)
	e.records++
	if e.quiet {
		l.count["quiet events recorded"]++
	}
	e.recordedID[r.Event.GetId()] = true
	a := e.message.GetAttributes()
	environment := a["service_environment"]
	if environment == "" {
		environment = environmentID
	}
	if r.ServiceID != a["service_id"] || r.Environment != environment {
		l.violate("event %d of %v was recorded as of %v", e.n, a, r.Identity)
	}
	if e.id != "" && r.Event.GetId() != e.id {
		l.violate("event %d has the id %s, want %s", e.n, r.Event.GetId(), e.id)
	}
	private := r.Event.GetParameters().GetPrivateMetadata().GetFields()["note"].GetStringValue()
	if e.private != (private == marker) || r.Event.GetFeature() != feature || r.Event.GetAction() != action {
		l.violate("event %d was recorded with other content: %v", e.n, r.Event)
	}
}

// deadLetter enters dead-lettered messages.
func (l *ledger) deadLetter(messages []*pubsubpb.PubsubMessage) {
	for _, m := range messages {
		d, err := testenv.ReadDeadLetter(m.GetData(), m.GetAttributes())
		if err != nil {
			l.violation("a dead-lettered message cannot be read: %v: %v", err, m.GetAttributes())
			continue
		}
		l.mu.Lock()
		l.unjudged = append(l.unjudged, d)
		l.mu.Unlock()
	}
}

// judge checks the dead-lettered messages whose originals are known by now.
func (l *ledger) judge() {
	var unknown []testenv.DeadLetter
	for _, b := range l.unjudged {
		id := b.DLQ["dlq_message_id"]
		e := l.byMessage[id]
		if e == nil {
			unknown = append(unknown, b)
			continue
		}
		e.messages[id]++
		if want := reasons[e.kind]; b.DLQ["dlq_reason"] != want {
			l.violate("event %d (message %s) was dead-lettered as %q, want %q: %s", e.n, id, b.DLQ["dlq_reason"], want, b.DLQ["dlq_detail"])
		}
		if !bytes.Equal(b.Data, e.message.GetData()) || !maps.Equal(b.Attributes, e.message.GetAttributes()) {
			l.violate("the dead-lettered message of event %d is not the original: %q %v", e.n, b.Data, b.Attributes)
		}
		for _, key := range []string{"dlq_detail", "dlq_rejected_at", "dlq_attempts", "dlq_publish_time", "dlq_subscription"} {
			if b.DLQ[key] == "" {
				l.violate("the dead-lettered message of event %d has no %s", e.n, key)
			}
		}
		for key, value := range b.DLQ {
			if bytes.Contains([]byte(key+value), []byte(marker)) {
				l.violate("%s of the dead-lettered message of event %d shows private metadata", key, e.n)
			}
		}
	}
	l.unjudged = unknown
}

// settled reports whether an event has the result that it must have.
func (e *entry) settled() bool {
	if e.kind == healthy {
		return len(e.recordedID) >= e.wanted()
	}
	deadLettered := 0
	for _, deadLetters := range e.messages {
		deadLettered += min(1, deadLetters)
	}
	return deadLettered >= e.wanted()
}

// wanted returns how many records or dead-lettered messages there must be at least. Each
// message without an id is an event of its own, and an event that is rejected before it is
// sent is rejected for each message. But of copies of an event in one worker, only one is
// recorded or dead-lettered.
func (e *entry) wanted() int {
	if e.id == "" || (e.kind != healthy && e.kind < leftOut) {
		return max(1, len(e.messages))
	}
	return 1
}

// open returns the events that were published before a time and are not settled.
func (l *ledger) open(ago time.Duration) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.judge()
	var all []string
	for _, e := range l.entries {
		if time.Since(e.at) >= ago && !e.settled() {
			all = append(all, fmt.Sprintf("event %d of %s (%q %v): %d records, deadLetters by message %v", e.n, e.at.Format("15:04:05.000"), e.message.GetData(), e.message.GetAttributes(), e.records, e.messages))
		}
	}
	return all
}

// totals are the figures of a run.
type totals struct {
	Events, Messages, Recorded, DeadLetters int
	AgainRecorded, AgainBuried, Duplicates  int
	ByKind                                  map[string]int
}

// close checks the account at the end.
func (l *ledger) close() totals {
	for _, o := range l.open(0) {
		l.violation("lost: %s", o)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t := totals{Events: len(l.entries), Messages: len(l.byMessage), ByKind: map[string]int{}}
	for _, b := range l.unjudged {
		l.violate("a dead-lettered message of a message that nobody published: %v", b.DLQ)
	}
	for _, e := range l.entries {
		deadLetters := 0
		for _, n := range e.messages {
			deadLetters += n
			t.AgainBuried += max(0, n-1)
		}
		t.DeadLetters += deadLetters
		t.Recorded += e.records
		t.AgainRecorded += max(0, e.records-e.wanted())
		t.Duplicates += len(e.messages) - 1
		switch {
		case e.kind == healthy && deadLetters > 0:
			l.violate("the healthy event %d was dead-lettered %d times", e.n, deadLetters)
		case e.kind == healthy && e.quiet && e.records > 1:
			l.violate("event %d was recorded %d times although all faults had ended", e.n, e.records)
		case e.kind != healthy && e.records > 0:
			l.violate("event %d, which is bad (%s), was recorded", e.n, reasons[e.kind])
		}
		if len(e.messages) == 1 && len(e.recordedID) > 1 {
			l.violate("event %d was recorded with different ids: %v", e.n, e.recordedID)
		}
		name := "healthy"
		if e.kind != healthy {
			name = reasons[e.kind]
		}
		t.ByKind[name]++
	}
	return t
}
