package dlq

import (
	"slices"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// The reasons of messages that the worker has not written.
const (
	// ReasonAttempts is that of Pub/Sub's own dead-letter policy.
	ReasonAttempts event.Reason = "delivery_attempts_exhausted"
	// ReasonUnknown is that of messages without a reason.
	ReasonUnknown event.Reason = "unknown"
)

// Reasons has a row for each reason that a message in the queue may have.
var Reasons = append(slices.Clone(event.ReasonInfos),
	event.ReasonInfo{
		Reason: ReasonAttempts, Fault: event.AtOutage, Meaning: "Pub/Sub's own dead-letter policy took the message; no worker judged it",
		Remedy: "Replay the messages. A long outage made Pub/Sub deliver them too often before a worker could settle them.",
	},
	event.ReasonInfo{
		Reason: ReasonUnknown, Fault: event.AtStranger, Meaning: "the message has no `dlq_reason`, and Pub/Sub's policy did not move it",
		Remedy: "Find out who published to the dead-letter topic. `worker dlq replay --dry-run` says whether the worker would take the message.",
	})

// FindReason returns the row of a reason; ok is false where there is none.
func FindReason(reason event.Reason) (row event.ReasonInfo, ok bool) {
	i := slices.IndexFunc(Reasons, func(r event.ReasonInfo) bool { return r.Reason == reason })
	if i < 0 {
		return event.ReasonInfo{}, false
	}
	return Reasons[i], true
}
