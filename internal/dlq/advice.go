package dlq

import (
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// attributePrefix begins details that name an attribute.
const attributePrefix = "attribute "

// Field returns the field or attribute that a detail names, if any.
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

// Here marks the faulty field.
const Here = "   <── here"

// Point marks the row of a field in a text of View.String. It marks nothing for an
// attribute.
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

// Advice says what to do about a message.
func Advice(s *Stored) string {
	if s.Broken != nil {
		return "The original message cannot be restored. Find out who published this one. A replay skips it; a purge keeps it in the backup as it is."
	}
	switch readable := canRead(s.Original.Data); {
	case s.Reason == event.MalformedPayload && readable:
		return adviceNotObject
	case s.Reason == event.InvalidEvent && !readable:
		return adviceDuplicateKey
	}
	if row, ok := FindReason(s.Reason); ok {
		return row.Remedy
	}
	return "Find out who published it. `worker dlq replay --dry-run` says whether the worker would take it."
}

// adviceNotObject is for data that is valid JSON and yet no event.
const adviceNotObject = "The data is valid JSON, but not an event: one object of at most 100 levels. Tell the owner. If the data contains the event, take it out with " +
	"`worker dlq replay --jq EXPR`. Examples are --jq fromjson for an event that was encoded twice and --jq '.[0]' for a list of one; try it with --dry-run first. Else export the messages and correct the lines by hand, or purge them."

// adviceDuplicateKey is for objects with a key that is there twice.
const adviceDuplicateKey = "Tell the owner: the events are wrong at the source. A key is there twice, and no expression can fix that, because it would see only one of them. Export the messages, correct the lines by hand and publish them, or purge them."
