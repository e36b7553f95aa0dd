package dlq

import (
	"slices"
	"strings"
	"testing"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sourcegraph/telemetry-relay/internal/emulator"
	"github.com/sourcegraph/telemetry-relay/internal/provision"
)

// TestLookOnEmulatorShowsTheQueueWithoutLeases uses the snapshots and seeks of Google's
// emulator. The emulator keeps no labels, so that the snapshot of a killed command is not
// tested here. Nor are old messages, which the emulator cannot make.
func TestLookOnEmulatorShowsTheQueueWithoutLeases(t *testing.T) {
	local := emulator.New(t)
	opts := []option.ClientOption{
		option.WithEndpoint(local.Host), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
	e := &queueEnv{t: t}
	admin, err := provision.Connect(t.Context(), opts...)
	e.must(err)
	defer admin.Close()
	for _, topic := range []string{mainTopic, dlqTopic} {
		e.must(admin.CreateTopic(t.Context(), topic))
	}
	for name, topic := range map[string]string{mainSub: mainTopic, dlqSub: dlqTopic, viewSub: dlqTopic} {
		e.must(admin.CreateSubscription(t.Context(), &pubsubpb.Subscription{Name: name, Topic: topic, AckDeadlineSeconds: 60}))
	}
	topics, err := pubsub.NewTopicAdminClient(t.Context(), opts...)
	e.must(err)
	defer topics.Close()
	published, err := topics.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: dlqTopic, Messages: []*pubsubpb.PubsubMessage{
		{Data: []byte("0")}, {Data: []byte("1")}, {Data: []byte("2")}, {Data: []byte("3")}, {Data: []byte("4")},
	}})
	e.must(err)
	ids := published.GetMessageIds()

	oncall, err := NewClient(t.Context(), dlqSub, opts...)
	e.must(err)
	defer oncall.Close()
	leased, err := oncall.Pull(t.Context(), 3, true)
	e.must(err)
	e.must(oncall.Acknowledge(t.Context(), []string{leased[0].GetAckId()}))
	left := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == leased[0].GetMessage().GetMessageId() })

	for range 2 { // one look after the other
		l, err := OpenLook(t.Context(), dlqSub, viewSub, opts...)
		e.must(err)
		if _, err := OpenLook(t.Context(), dlqSub, viewSub, opts...); err == nil || !strings.HasPrefix(err.Error(), "another process looks") {
			t.Errorf("the second at a time: %v", err)
		}
		if got := e.read(l); !slices.Equal(got, left) || l.Doubt() != "" {
			t.Errorf("it shows %q, want %q; doubt %q", got, left, l.Doubt())
		}
		e.must(l.CloseLook())
	}
	if _, err := OpenLook(t.Context(), dlqSub, mainSub, opts...); err == nil || !strings.HasPrefix(err.Error(), "DLQ_VIEW_SUBSCRIPTION is no subscription") {
		t.Errorf("a view of another topic: %v", err)
	}
	// The look has not touched the leases of the queue: the other messages can be pulled.
	rest, err := oncall.Pull(t.Context(), 10, true)
	e.must(err)
	if len(rest) != 2 {
		t.Errorf("%d messages are free in the queue, want 2", len(rest))
	}
}
