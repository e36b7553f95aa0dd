// Package receipts reports the results of replayed events to the person who replayed
// them. The worker publishes one receipt for each replayed message whose verdict is settled;
// `worker dlq status` and `worker trace` read them.
package receipts

import (
	"strings"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// The attributes of a receipt, which has no data. They are a promise to on-call.
const (
	AttrReplayID        = event.AttrReplayID
	AttrOriginMessageID = event.AttrOriginMessageID
	AttrEventID         = "event_id"
	AttrVerdict         = "verdict"
	AttrReason          = "reason"
	AttrAt              = "at"
	AttrServicesDigest  = "services_digest"
)

// Verdict is the result of a replayed event.
type Verdict string

// The verdicts. A reader must take any other text for Unknown, because a later worker
// may have more of them.
const (
	// Recorded: the gateway has listed the event.
	Recorded Verdict = "recorded"
	// Rejected: the event is in the dead-letter queue again.
	Rejected Verdict = "rejected"
	// Duplicate: the gateway has listed the event for another message.
	Duplicate Verdict = "duplicate"
	// Unknown is never published.
	Unknown Verdict = "unknown"
)

// Verdicts are those that the worker publishes.
var Verdicts = []Verdict{Recorded, Rejected, Duplicate}

// Receipt is the verdict of one replayed message.
type Receipt struct {
	// ReplayID is that of the operation that has published the message.
	ReplayID string
	// OriginMessageID is the id of the message that was first published with the event.
	OriginMessageID string
	// EventID is empty where it is not known.
	EventID string
	Verdict Verdict
	// Reason is that of a rejection, such as invalid_event; else empty.
	Reason string
	// At is the time of the verdict, by the worker's clock.
	At time.Time
	// ServicesDigest identifies the worker's services list: see policy.Set.
	ServicesDigest string
}

// maxID bounds the ids that a receipt repeats, in bytes. Those of Pub/Sub and of the
// commands are far shorter; a longer one was forged.
const maxID = 256

// For returns a receipt without its verdict for a message with these attributes. ok is
// false if the message was not replayed: then nobody waits for a receipt.
func For(attributes map[string]string) (r Receipt, ok bool) {
	id, origin := attributes[event.AttrReplayID], attributes[event.AttrOriginMessageID]
	if event.Replays(attributes) == 0 || !isID(id) || !isID(origin) {
		return Receipt{}, false
	}
	// The message's memory must not live as long as the receipt.
	return Receipt{ReplayID: strings.Clone(id), OriginMessageID: strings.Clone(origin)}, true
}

// isID reports whether a text can be an id. Without this check, a forged id could make
// Pub/Sub refuse a whole request, with the receipts of other messages.
func isID(s string) bool { return s != "" && len(s) <= maxID && strings.ToValidUTF8(s, "") == s }

// Attributes returns the attributes of the receipt's message. It is the inverse of Read.
func (r Receipt) Attributes() map[string]string {
	a := map[string]string{
		AttrReplayID:        r.ReplayID,
		AttrOriginMessageID: r.OriginMessageID,
		AttrVerdict:         string(r.Verdict),
		AttrAt:              r.At.UTC().Format(time.RFC3339Nano),
	}
	for name, value := range map[string]string{AttrEventID: r.EventID, AttrReason: r.Reason, AttrServicesDigest: r.ServicesDigest} {
		if value != "" {
			a[name] = value
		}
	}
	return a
}

// Read reads a receipt. It ignores unknown attributes. ok is false for a message that is no
// receipt, because it does not name the replay and the original message. All texts but these
// two ids are safe to show.
func Read(attributes map[string]string) (r Receipt, ok bool) {
	r = Receipt{
		ReplayID:        attributes[AttrReplayID],
		OriginMessageID: attributes[AttrOriginMessageID],
		EventID:         fault.Word(attributes[AttrEventID]),
		Verdict:         Verdict(attributes[AttrVerdict]),
		Reason:          fault.Word(attributes[AttrReason]),
		ServicesDigest:  fault.Word(attributes[AttrServicesDigest]),
	}
	switch r.Verdict {
	case Recorded, Rejected, Duplicate:
	default:
		r.Verdict = Unknown
	}
	if at, err := time.Parse(time.RFC3339Nano, attributes[AttrAt]); err == nil {
		r.At = at.UTC()
	}
	return r, isID(r.ReplayID) && isID(r.OriginMessageID)
}
