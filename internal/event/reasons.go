package event

import "strings"

// Reason is why an event was rejected. On-call relies on the values, so they never change.
type Reason string

// The reasons of the decoder, in the order in which it checks them.
const (
	UnsupportedSchema Reason = "unsupported_schema"
	UnknownService    Reason = "unknown_service"
	MalformedPayload  Reason = "malformed_payload"
	InvalidEvent      Reason = "invalid_event"
	PolicyViolation   Reason = "policy_violation"
	Oversized         Reason = "oversized"
)

// The reasons that only the submission of an event can show.
const (
	GatewayRejected Reason = "gateway_rejected"
	GatewayRefused  Reason = "gateway_refused"
)

// Party names who is at fault for a rejection, in words for a table.
type Party string

// The parties that a reason may point at.
const (
	AtPublisher Party = "the publisher"
	AtServices  Party = "services.yaml, or the publisher"
	AtGateway   Party = "the gateway, or the event"
	AtOutage    Party = "a long outage"
	AtStranger  Party = "somebody with access to the topic"
)

// ReasonInfo is everything that the project says about a reason. The metrics, the colours
// and the advice of `worker dlq`, and the table in docs/oncall.md are made from it.
type ReasonInfo struct {
	Reason Reason
	Fault  Party
	// Meaning is a clause for a table: the state of the event.
	Meaning string
	// Remedy is advice for on-call. Its first sentence stands alone in a table.
	Remedy string
}

// Summary returns the first sentence of the remedy, without the full stop.
func (r ReasonInfo) Summary() string {
	first, _, _ := strings.Cut(r.Remedy, ". ")
	return strings.TrimSuffix(first, ".")
}

// ReasonInfos has a row for each reason of the worker, in the order in which they
// are checked.
var ReasonInfos = []ReasonInfo{
	{
		UnsupportedSchema, AtPublisher, "`schema_version` is not `1`",
		"Deploy a worker that knows the schema version, then replay. If the publisher set schema_version by mistake, tell its owner: it must be 1 or absent.",
	},
	{
		UnknownService, AtServices, "`service_id` is missing, malformed or not in services.yaml",
		"Add the service to services.yaml (or WORKER_SERVICES), deploy the worker, then replay. If service_id is missing or misspelt, export the messages, correct the attribute in the lines, and publish them.",
	},
	{
		MalformedPayload, AtPublisher, "the data is not one JSON object in UTF-8",
		"Export the messages and correct the lines by hand, or purge them. The data is not valid JSON, and no expression can fix that. Tell the owner.",
	},
	{
		InvalidEvent, AtPublisher, "a field is unknown, missing or has a wrong value; the detail names it",
		"Replay with --jq, which corrects each event on the way. Examples are --jq 'del(.typo)' and --jq '.user.userId |= tonumber'; try it with --dry-run first. Tell the owner: the events are wrong at the source.",
	},
	{
		PolicyViolation, AtServices, "services.yaml, or the catalogue to which it refers, forbids the environment, the event, a key of its metadata or its private metadata",
		"Change the service's rule or its catalogue, deploy the worker, then replay; or take out the forbidden part with --jq. An example is --jq 'del(.privateMetadata)'.",
	},
	{
		Oversized, AtPublisher, "the event is larger than the gateway takes",
		"Replay with --jq, which makes the event smaller, or purge it. Tell the owner.",
	},
	{
		GatewayRejected, AtGateway, "the gateway omitted the event again and again while it recorded others",
		"Ask the gateway's team for the cause, and replay when it is solved. The gateway gives no reason for an event that it omits.",
	},
	{
		GatewayRefused, AtGateway, "the gateway refuses a stream or an identity because of this event",
		"Ask the gateway's team about the code in the detail, and replay when the gateway takes the event.",
	},
}

// Reasons lists the reasons of the worker, in the order in which they are checked.
var Reasons = reasonsOf(ReasonInfos)

func reasonsOf(rows []ReasonInfo) []Reason {
	all := make([]Reason, len(rows))
	for i, row := range rows {
		all[i] = row.Reason
	}
	return all
}
