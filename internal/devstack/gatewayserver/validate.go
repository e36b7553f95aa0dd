package gatewayserver

import (
	"encoding/json"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// verdict is the gateway's decision about one event by its rules.
type verdict int

const (
	recordable   verdict = iota
	invalid              // for ever: the response leaves it out
	silentlyLost         // oversized: dropped, and reported as succeeded
	refused              // by Pub/Sub, with everything that travels in its request
	unpublished          // its request was refused or lost
)

// maxNameBytes bounds a feature and an action.
const maxNameBytes = 64

// renderSlack is more than the JSON rendering of an event has beyond six bytes
// for each byte on the wire: the names of the fields that exist once.
const renderSlack = 4096

// judge applies the gateway's rules. metadataBytes is the size of the stream's
// metadata in JSON.
func judge(e *Event, metadata json.RawMessage) verdict {
	switch {
	case e.GetId() == "", !validName(e.GetFeature()), !validName(e.GetAction()), e.GetTimestamp() == nil:
		return invalid
	}
	// Rendering is by far the dearest step. A byte on the wire becomes at most
	// six in JSON, so an event that is small enough needs none: what else stops
	// it from being rendered can be seen without.
	if 6*proto.Size(e)+len(metadata)+renderSlack < MaxRenderedBytes {
		if !marshallable(e) {
			return invalid
		}
		if tooManyAttributes(e) {
			return refused
		}
		return recordable
	}
	size, err := renderedSize(e, metadata)
	switch {
	case err != nil:
		return invalid
	case size >= MaxRenderedBytes:
		return silentlyLost
	case size >= MaxPublishedBytes, tooManyAttributes(e):
		return refused
	}
	return recordable
}

// tooManyAttributes reports whether Pub/Sub refuses the event's attributes.
func tooManyAttributes(e *Event) bool {
	n := 0
	for key, value := range e.GetParameters().GetMetadata() {
		if value > 0 && len(key) >= len(AttributePrefix)+2 && strings.HasPrefix(key, AttributePrefix) {
			if n++; n > MaxAttributeKeys || len(key) > MaxAttributeKeyBytes {
				return true
			}
		}
	}
	return false
}

// renderedSize is the size of the message that the gateway publishes.
func renderedSize(e *Event, metadata json.RawMessage) (int, error) {
	event, err := protojson.Marshal(e)
	if err != nil {
		return 0, err
	}
	rendered, err := json.Marshal(map[string]json.RawMessage{"event": event, "metadata": metadata})
	return len(rendered), err
}

// validName is ^[a-z][a-zA-Z-\.]+$ and the length.
func validName(name string) bool {
	if len(name) < 2 || len(name) > maxNameBytes || name[0] < 'a' || name[0] > 'z' {
		return false
	}
	for i := 1; i < len(name); i++ {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// marshallable says whether protojson renders an event that was decoded from
// the wire, whose strings are therefore known to be UTF-8.
func marshallable(e *Event) bool {
	return e.GetTimestamp().IsValid() && marshallableStruct(e.GetParameters().GetPrivateMetadata())
}

func marshallableStruct(s *structpb.Struct) bool {
	for _, v := range s.GetFields() {
		if !marshallableValue(v) {
			return false
		}
	}
	return true
}

func marshallableValue(v *structpb.Value) bool {
	switch kind := v.GetKind().(type) {
	case nil:
		return false
	case *structpb.Value_NumberValue:
		return !math.IsNaN(kind.NumberValue) && !math.IsInf(kind.NumberValue, 0)
	case *structpb.Value_StructValue:
		return marshallableStruct(kind.StructValue)
	case *structpb.Value_ListValue:
		for _, item := range kind.ListValue.GetValues() {
			if !marshallableValue(item) {
				return false
			}
		}
	}
	return true
}

// renderMetadata is the metadata as it accompanies every event.
func renderMetadata(m *telemetrygatewayv1.RecordEventsRequestMetadata) (json.RawMessage, error) {
	return protojson.Marshal(m)
}
