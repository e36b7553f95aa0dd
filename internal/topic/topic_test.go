package topic

import (
	"context"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.uber.org/goleak"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// A dependency of the client starts it when the program does.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

const (
	topicName = "projects/p/topics/events"
	subName   = "projects/p/subscriptions/relay"
)

func setup(t *testing.T, name string) (*pubsubserver.Server, *Client) {
	t.Helper()
	s, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, err := range []error{s.CreateTopic(topicName), s.CreateSubscription(subName, topicName)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := NewClient(t.Context(), name, option.WithEndpoint(s.Addr()), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return s, c
}

func messages(n, size int) []*pubsubpb.PubsubMessage {
	all := make([]*pubsubpb.PubsubMessage, n)
	for i := range all {
		all[i] = &pubsubpb.PubsubMessage{Data: make([]byte, size), Attributes: map[string]string{"a": "b"}}
	}
	return all
}

func TestMessagesArePublished(t *testing.T) {
	s, c := setup(t, topicName)
	for _, m := range [][]*pubsubpb.PubsubMessage{messages(1, 1), messages(MaxRequestMessages, 1), messages(1, 9_900_000)} {
		if err := c.Publish(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
	if got := s.Stats(subName).Backlog; got != 2+MaxRequestMessages {
		t.Errorf("%d messages", got)
	}
	if err := c.Publish(t.Context(), messages(MaxRequestMessages+1, 1)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("too many: %v", err)
	}
}

func TestPublishFails(t *testing.T) {
	s, c := setup(t, topicName)
	calls := 0
	s.SetFault(func(string, any) error { calls++; return status.Error(codes.Unavailable, "down") })
	if err := c.Publish(t.Context(), messages(1, 1)); status.Code(err) != codes.Unavailable || calls != 1 {
		t.Errorf("%v after %d calls: whoever publishes has its own retries", err, calls)
	}
	s.SetFault(func(string, any) error { return pubsubserver.ErrHang })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Publish(ctx, messages(1, 1)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
	_, other := setup(t, topicName+"-missing")
	if err := other.Publish(t.Context(), messages(1, 1)); status.Code(err) != codes.NotFound {
		t.Errorf("got %v", err)
	}
}

// TestPublishErrorsQuoteNothing: the server has read the messages.
func TestPublishErrorsQuoteNothing(t *testing.T) {
	s, c := setup(t, topicName)
	for text, want := range map[string]string{
		"User not authorized to perform this action.":                         "PermissionDenied: User not authorized to perform this action.",
		"Resource not found (resource=telemetry-events-dlq).":                 "PermissionDenied: Resource not found (resource=telemetry-events-dlq).",
		`cannot take {"email":"alice@example.com"}`:                           "PermissionDenied: publishing to the topic is not permitted",
		"Resource not found (resource=alice@example.com).":                    "PermissionDenied: publishing to the topic is not permitted",
		"User not authorized to perform this action. data: alice@example.com": "PermissionDenied: publishing to the topic is not permitted",
	} {
		s.SetFault(func(string, any) error { return status.Error(codes.PermissionDenied, text) })
		err := c.Publish(t.Context(), messages(1, 1))
		if err == nil || err.Error() != want || status.Code(err) != codes.PermissionDenied || strings.Contains(status.Convert(err).Message(), "alice") {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		s.SetFault(func(string, any) error { return status.Error(code, "alice@example.com") })
		if err := c.Publish(t.Context(), messages(1, 1)); status.Code(err) != code || strings.Contains(err.Error(), "alice") {
			t.Errorf("%v: got %v", code, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// The first request may still meet the end of the old connection.
	_ = c.Publish(t.Context(), messages(1, 1))
	if err := c.Publish(t.Context(), messages(1, 1)); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

// Size must never be too small: requests are cut by it.
func TestSizeIsNotTooSmall(t *testing.T) {
	long := map[string]string{}
	for i := range 100 {
		long[strings.Repeat("k", 256-i)] = strings.Repeat("v", 1024)
	}
	for _, m := range []*pubsubpb.PubsubMessage{
		{}, {Data: make([]byte, 1)}, {Data: make([]byte, 10<<20)},
		{OrderingKey: strings.Repeat("k", 1024)},
		{Data: make([]byte, 200), Attributes: map[string]string{"": "", "a": "b", "long": strings.Repeat("x", 1024)}, OrderingKey: "k"},
		{Attributes: long, Data: make([]byte, 5<<20), OrderingKey: strings.Repeat("k", 1024)},
	} {
		encoded := proto.Size(&pubsubpb.PublishRequest{Messages: []*pubsubpb.PubsubMessage{m}})
		if got := Size(m); got < encoded || got > encoded+24+10*len(m.GetAttributes()) {
			t.Errorf("got %d, and it has %d", got, encoded)
		}
	}
}
