package pubsubserver

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

func TestPublishLimits(t *testing.T) {
	f := newFixture(t)
	text := func(n int) *pubsubpb.PubsubMessage {
		return &pubsubpb.PubsubMessage{Data: bytes.Repeat([]byte("x"), n)}
	}
	attrs := func(kv ...string) *pubsubpb.PubsubMessage {
		m := &pubsubpb.PubsubMessage{Attributes: map[string]string{}}
		for i := 0; i < len(kv); i += 2 {
			m.Attributes[kv[i]] = kv[i+1]
		}
		return m
	}
	many := func(n int) *pubsubpb.PubsubMessage {
		m := attrs()
		for i := range n {
			m.Attributes[fmt.Sprintf("k%d", i)] = "v"
		}
		return m
	}
	messages := func(n int) []*pubsubpb.PubsubMessage {
		msgs := make([]*pubsubpb.PubsubMessage, n)
		for i := range msgs {
			msgs[i] = text(1)
		}
		return msgs
	}
	// The largest request: what is left of it beside one message's framing.
	largest := text(MaxPublishBytes)
	for size := MaxPublishBytes; proto.Size(&pubsubpb.PublishRequest{Topic: testTopic, Messages: []*pubsubpb.PubsubMessage{largest}}) > MaxPublishBytes; size-- {
		largest.Data = largest.GetData()[:size]
	}
	for name, test := range map[string]struct {
		topic string
		msgs  []*pubsubpb.PubsubMessage
		want  codes.Code
	}{
		"no messages":          {msgs: nil, want: codes.InvalidArgument},
		"1000 messages":        {msgs: messages(1000)},
		"1001 messages":        {msgs: messages(1001), want: codes.InvalidArgument},
		"empty message":        {msgs: []*pubsubpb.PubsubMessage{{}}, want: codes.InvalidArgument},
		"attributes only":      {msgs: []*pubsubpb.PubsubMessage{attrs("k", "v")}},
		"100 attributes":       {msgs: []*pubsubpb.PubsubMessage{many(100)}},
		"101 attributes":       {msgs: []*pubsubpb.PubsubMessage{many(101)}, want: codes.InvalidArgument},
		"empty key":            {msgs: []*pubsubpb.PubsubMessage{attrs("", "v")}, want: codes.InvalidArgument},
		"long key":             {msgs: []*pubsubpb.PubsubMessage{attrs(strings.Repeat("k", 256), "v")}},
		"key too long":         {msgs: []*pubsubpb.PubsubMessage{attrs(strings.Repeat("k", 257), "v")}, want: codes.InvalidArgument},
		"long value":           {msgs: []*pubsubpb.PubsubMessage{attrs("k", strings.Repeat("v", 1024))}},
		"value too long":       {msgs: []*pubsubpb.PubsubMessage{attrs("k", strings.Repeat("v", 1025))}, want: codes.InvalidArgument},
		"goog key":             {msgs: []*pubsubpb.PubsubMessage{attrs("google", "v")}, want: codes.InvalidArgument},
		"googclient key":       {msgs: []*pubsubpb.PubsubMessage{attrs("googclient_traceparent", "v")}},
		"largest message":      {msgs: []*pubsubpb.PubsubMessage{largest}},
		"message too large":    {msgs: []*pubsubpb.PubsubMessage{{Data: make([]byte, len(largest.GetData())+1)}}, want: codes.InvalidArgument},
		"too large together":   {msgs: []*pubsubpb.PubsubMessage{text(6 << 20), text(6 << 20)}, want: codes.InvalidArgument},
		"a topic that is away": {topic: "projects/p/topics/away", msgs: messages(1), want: codes.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			topic := test.topic
			if topic == "" {
				topic = testTopic
			}
			before := f.Stats(testSub).Backlog
			resp, err := f.topics.Publish(f.ctx, &pubsubpb.PublishRequest{Topic: topic, Messages: test.msgs})
			wantCode(t, err, test.want)
			want := 0
			if test.want == codes.OK {
				want = len(test.msgs)
			}
			if got := f.Stats(testSub).Backlog - before; got != want || len(resp.GetMessageIds()) != want {
				t.Errorf("%d messages in the subscription, %d ids, want %d", got, len(resp.GetMessageIds()), want)
			}
		})
	}
}

// One message over the limits takes the whole request with it.
func TestPublishRefusesWholeRequests(t *testing.T) {
	f := newFixture(t)
	good := &pubsubpb.PubsubMessage{Data: []byte("x"), Attributes: map[string]string{"k": "v"}}
	many := &pubsubpb.PubsubMessage{Attributes: map[string]string{}}
	for i := range MaxAttributes + 1 {
		many.Attributes[fmt.Sprintf("k%d", i)] = "v"
	}
	for name, bad := range map[string]*pubsubpb.PubsubMessage{
		"key":    {Attributes: map[string]string{strings.Repeat("k", MaxAttributeKeyBytes+1): "v"}},
		"value":  {Attributes: map[string]string{"k": strings.Repeat("v", MaxAttributeValueBytes+1)}},
		"number": many,
	} {
		for at := range 3 {
			msgs := []*pubsubpb.PubsubMessage{good, good, good}
			msgs[at] = bad
			_, err := f.topics.Publish(f.ctx, &pubsubpb.PublishRequest{Topic: testTopic, Messages: msgs})
			wantCode(t, err, codes.InvalidArgument)
			if got := len(f.Messages(testSub)); got != 0 {
				t.Errorf("%s: %d messages were published", name, got)
			}
		}
	}
}

func TestPublishKeepsTheMessage(t *testing.T) {
	f := newFixture(t)
	must(t, f.CreateSubscription("projects/p/subscriptions/second", testTopic))
	want := &pubsubpb.PubsubMessage{
		Data: []byte("data \x00\xff"), Attributes: map[string]string{"a": "1", "b": ""}, OrderingKey: "key",
	}
	resp, err := f.topics.Publish(f.ctx, &pubsubpb.PublishRequest{Topic: testTopic, Messages: []*pubsubpb.PubsubMessage{want}})
	must(t, err)
	got := f.pull(10)
	if len(got) != 1 {
		t.Fatalf("pulled %d messages", len(got))
	}
	m := got[0].GetMessage()
	if m.GetMessageId() != resp.GetMessageIds()[0] || !m.GetPublishTime().IsValid() || got[0].GetDeliveryAttempt() != 0 {
		t.Errorf("delivered %v", got[0])
	}
	for _, sub := range []string{testSub, "projects/p/subscriptions/second"} {
		snapshot := f.Messages(sub)
		if len(snapshot) != 1 || !proto.Equal(snapshot[0], m) {
			t.Errorf("snapshot of %s: %v", sub, snapshot)
		}
	}
	m.MessageId, m.PublishTime = "", nil
	if !proto.Equal(m, want) {
		t.Errorf("delivered %v, want %v", m, want)
	}
}

func TestInProcessPublishTakesAnyNumber(t *testing.T) {
	f := newFixture(t)
	if ids := f.publish(2500); len(ids) != 2500 || ids[0] == ids[2499] {
		t.Errorf("%d ids", len(ids))
	}
	if got := f.Messages(testSub); len(got) != 2500 || string(got[2499].GetData()) != "message 2499" {
		t.Errorf("%d messages", len(got))
	}
	_, err := f.Publish(testTopic, &pubsubpb.PubsubMessage{})
	wantCode(t, err, codes.InvalidArgument)
	_, err = f.Publish("projects/p/topics/away", &pubsubpb.PubsubMessage{Data: []byte("x")})
	wantCode(t, err, codes.NotFound)
}
