package dlq

import (
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// attributePrefix is how details begin that name an attribute.
const attributePrefix = "attribute "

// Field returns the field or attribute that a detail names, if it does.
func Field(detail string) string {
	field, _, ok := strings.Cut(detail, ": ")
	name, attribute := strings.CutPrefix(field, attributePrefix)
	if !ok || name == "" || strings.ContainsAny(name, " ") {
		return ""
	}
	if attribute {
		return attributePrefix + name
	}
	return name
}

// Here marks a line.
const Here = "   <── here"

// Point marks the field's line in JSON as View.String writes it; attributes have none.
func Point(shown, field string) string {
	if field == "" || strings.HasPrefix(field, attributePrefix) || !strings.HasPrefix(shown, "{") {
		return shown
	}
	lines := strings.Split(shown, "\n")
	at, indent := 0, 0
	for name := range strings.SplitSeq(field, ".") {
		indent += 2
		begin := strings.Repeat(" ", indent) + `"` + name + `":`
		next := at
		for i := at + 1; i < len(lines); i++ {
			if strings.HasPrefix(lines[i], begin) {
				next = i
				break
			}
			if len(lines[i])-len(strings.TrimLeft(lines[i], " ")) < indent {
				break // the object ends
			}
		}
		if next == at {
			break
		}
		at = next
	}
	lines[at] += Here
	return strings.Join(lines, "\n")
}

// Mending says what to do about a letter.
func Mending(s *Stored) string {
	if s.Broken != nil {
		return "The original message cannot be restored. Find out who wrote the letter; replay leaves it, purge keeps it as it is in the backup."
	}
	switch readable := canRead(s.Original.Data); {
	case s.Reason == event.MalformedPayload && readable:
		return mendingOfOthers
	case s.Reason == event.InvalidEvent && !readable:
		return mendingOfDuplicates
	}
	if text, ok := mending[s.Reason]; ok {
		return text
	}
	return "Find out who published it. `worker dlq replay --dry-run` says whether the worker would take it."
}

// mendingOfOthers is for data that is valid JSON and yet no event.
const mendingOfOthers = "The data is valid JSON, but not an event: one object of at most 100 levels. Tell the owner. Where the event is in it, take it out on the way: " +
	"`worker dlq replay --jq EXPR`, such as --jq fromjson for an event that was encoded twice, or --jq '.[0]' for a list of one; try it with --dry-run first. Else export the letters, mend the lines by hand or purge them."

// mendingOfDuplicates is for objects with a key that is there twice.
const mendingOfDuplicates = "Tell the owner, whose events are wrong at the source. A key is there twice, and no expression can mend that, because it would see one of them only. Export the letters, mend the lines by hand and publish them, or purge them."

var mending = map[event.Reason]string{
	event.UnsupportedSchema: "The publisher is newer than the worker, or wrong: schema_version must be 1 or absent. Deploy a worker that knows the version, then replay.",
	event.UnknownService:    "Add the service to services.yaml (or WORKER_SERVICES) if it may publish, deploy the worker, then replay. If service_id is missing or misspelt, export the letters, mend the attribute in the lines, and publish them.",
	event.MalformedPayload:  "The data is not one valid JSON value in UTF-8, and no expression can mend that. Tell the owner; export the letters, mend the lines by hand or purge them.",
	event.InvalidEvent:      "Tell the owner, whose events are wrong at the source. Mend these on the way: `worker dlq replay --jq EXPR`, such as --jq 'del(.typo)' or --jq '.userId |= tonumber'; try it with --dry-run first.",
	event.PolicyViolation:   "services.yaml forbids it. Change the service's rule if it is wrong, deploy the worker, then replay; or take out what is forbidden with --jq, such as --jq 'del(.privateMetadata)'.",
	event.Oversized:         "The event is larger than the gateway takes. Tell the owner; make it smaller on the way with --jq, or purge it.",
	event.GatewayRejected:   "The gateway left the event out again and again while it took others. Look for its cause on the gateway's side; replay when that is solved.",
	event.GatewayRefused:    "The gateway refuses this event or its publisher. Look at the code in the detail; replay when the gateway takes it.",
	ReasonAttempts:          "No worker has judged it: they received it too often without settling it, as in a long outage. Replay it.",
}
