package load

import (
	"bytes"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// EventMaker encodes events as the gateway gets them.
type EventMaker struct {
	bytes []byte // an entry of an EventsPayload
	id    int    // where the number stands
}

// NewEventMaker returns a maker of the events that the worker encodes from a Maker's
// messages.
func NewEventMaker() (*EventMaker, error) {
	var response pubsubpb.StreamingPullResponse
	now := time.Now()
	if err := proto.Unmarshal(NewMaker(Plan{Publishers: 1}).Append(nil, 0, now), &response); err != nil {
		return nil, err
	}
	services, err := policy.NewSet(nil, true)
	if err != nil {
		return nil, err
	}
	m := response.GetReceivedMessages()[0].GetMessage()
	e, rejection := event.NewDecoder(services, Environment).Decode(event.Message{
		ID: m.GetMessageId(), PublishTime: now, Data: m.GetData(), Attributes: m.GetAttributes(),
	})
	if rejection != nil {
		return nil, rejection
	}
	b := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), e.Wire)
	return &EventMaker{b, bytes.Index(b, []byte(idPrefix)) + numberOffset}, nil
}

// Append appends the event as an entry of an EventsPayload.
func (m *EventMaker) Append(b []byte, event int) []byte {
	start := len(b)
	b = append(b, m.bytes...)
	put(b[start+m.id:], event)
	return b
}
