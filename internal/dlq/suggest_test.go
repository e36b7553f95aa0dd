package dlq

import (
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
)

// TestSuggestedFixCorrectsTheDetail has details as the worker writes them. jq must compile
// each suggestion.
func TestSuggestedFixCorrectsTheDetail(t *testing.T) {
	for _, c := range []struct {
		reason             event.Reason
		detail, data, want string
	}{
		{event.InvalidEvent, "user.userId: expected an integer, got a string", ``, ".user.userId |= tonumber"},
		{event.InvalidEvent, "metadata.tier: expected a number, got a string", ``, ".metadata.tier |= tonumber"},
		{event.InvalidEvent, "metadata.on: expected a number, got a boolean", ``, ".metadata.on |= if . then 1 else 0 end"},
		{event.InvalidEvent, "client.version: expected a string, got a number", ``, ".client.version |= tostring"},
		{event.InvalidEvent, "typo: unknown field; expected one of feature, action", ``, "del(.typo)"},
		{event.InvalidEvent, "user.id: unknown field; expected one of userId", ``, "del(.user.id)"},
		{event.InvalidEvent, "timeStamp: unknown field; did you mean timestamp?", ``, ".timestamp //= .timeStamp | del(.timeStamp)"},
		{event.InvalidEvent, "user.userID: unknown field; did you mean userId?", ``, ".user.userId //= .user.userID | del(.user.userID)"},
		{event.InvalidEvent, "metadata.n: expected a number, got null", ``, "del(.metadata.n)"},
		{event.InvalidEvent, "id: expected a UUID in its canonical form of 36 characters, got a string of 0 bytes", ``, "del(.id)"},
		{event.InvalidEvent, "timestamp: expected a string, got a number", ``, ".timestamp |= todate"},
		{event.PolicyViolation, "privateMetadata: services.yaml does not allow service \"x\" any", ``, "del(.privateMetadata)"},
		{event.MalformedPayload, "malformed JSON at byte offset 0", `"{\"feature\":\"ab\"}"`, "fromjson"},
		{event.MalformedPayload, "malformed JSON at byte offset 0", `[{"feature":"ab"}]`, ".[0]"},
		// No fix is known.
		{event.MalformedPayload, "malformed JSON at byte offset 0", `{"feature`, "."},
		{event.InvalidEvent, "metadata[a key of 3 bytes]: expected a number, got a string", ``, "."},
		{event.InvalidEvent, "metadata.if: expected a number, got a string", ``, "."},
		{event.InvalidEvent, "metadata.a-b: expected a number, got a string", ``, "."},
		{event.UnknownService, `attribute service_id: "x" is not listed in services.yaml`, ``, "."},
		{event.InvalidEvent, "", ``, "."},
	} {
		got := SuggestFix(&Stored{Reason: c.reason, Detail: c.detail, Original: ndjson.Message{Data: []byte(c.data)}})
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.detail, got, c.want)
		}
		if _, err := CompileFix(got); err != nil {
			t.Errorf("%s: %v", got, err)
		}
	}
}
