package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	gateway "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

const (
	// maxWire keeps a request with one event below the gateway's limit of 4 MiB
	// for a message.
	maxWire = 4<<20 - 64<<10
	// maxJSON stays below the 10,000,000 bytes from which on the gateway drops
	// an event and yet reports it as recorded.
	maxJSON = 9_900_000
)

// No byte of an event on the wire becomes more than six in JSON: that is the
// longest escape of a one-byte character, and the two lines that need six have
// three bytes on the wire. Entries, numbers and the other parts of maps and
// private metadata take at least as many bytes on the wire, tag and length
// included, as a sixth of their JSON. What does not grow with the wire are the
// fixed names of the fields with their punctuation, the timestamp and the digits
// of two integers: less than 1,000 bytes. The request's metadata needs another
// few hundred besides its two strings.
const (
	maxGrowth = 6
	maxFixed  = 4096
)

// jsonBound returns at least as much as jsonSize at a small part of its cost.
func jsonBound(wire []byte, publisher Publisher) int {
	return maxGrowth*(len(wire)+len(publisher.ServiceID)+len(publisher.Environment)) + maxFixed
}

// tooLarge says what about an event is too large for the gateway, "" if nothing
// is.
func tooLarge(wire []byte, publisher Publisher) string {
	if len(wire) > maxWire {
		return fmt.Sprintf("the event is too large: expected at most %d bytes when encoded for the gateway, got %d", maxWire, len(wire))
	}
	if jsonBound(wire, publisher) < maxJSON {
		return ""
	}
	size, err := jsonSize(wire, publisher)
	if err != nil {
		return "the event is large and cannot be rendered as JSON to measure it"
	}
	if size >= maxJSON {
		return fmt.Sprintf("the event is too large: expected less than %d bytes when the gateway renders it as JSON with its metadata, got %d", maxJSON, size)
	}
	return ""
}

// jsonSize returns how many bytes the event and the metadata of its request take
// in the gateway's JSON.
func jsonSize(wire []byte, publisher Publisher) (int, error) {
	var event gateway.Event
	if err := proto.Unmarshal(wire, &event); err != nil {
		return 0, err
	}
	metadata := &gateway.RecordEventsRequestMetadata{
		RequestId: strings.Repeat("0", idLen),
		Identifier: &gateway.Identifier{Identifier: &gateway.Identifier_ManagedService{
			ManagedService: &gateway.Identifier_ManagedServiceIdentifier{
				ServiceId:          publisher.ServiceID,
				ServiceEnvironment: &publisher.Environment,
			},
		}},
	}
	total := 0
	for _, m := range []proto.Message{&event, metadata} {
		rendered, err := protojson.Marshal(m)
		if err != nil {
			return 0, err
		}
		// encoding/json compacts what a Marshaler returns and escapes HTML in
		// it.
		var compact, escaped bytes.Buffer
		if err := json.Compact(&compact, rendered); err != nil {
			return 0, err
		}
		json.HTMLEscape(&escaped, compact.Bytes())
		total += escaped.Len()
	}
	return total, nil
}
