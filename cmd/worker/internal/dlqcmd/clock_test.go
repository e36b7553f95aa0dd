package dlqcmd

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// shifted is a Pub/Sub whose clock is ahead of the test's. It forwards to a server with the
// test's clock.
type shifted struct {
	pubsubpb.UnimplementedSubscriberServer
	pubsubpb.UnimplementedPublisherServer
	subscriber pubsubpb.SubscriberClient
	publisher  pubsubpb.PublisherClient
	ahead      time.Duration
	dates      bool // its answers have a Date
	// onPublish is called after each request to publish.
	onPublish func([]*pubsubpb.PubsubMessage)
}

// shift starts one in front of the stack, and returns its address.
func (h *testQueue) shift(s *shifted) string {
	h.t.Helper()
	conn, err := grpc.NewClient(h.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.t.Fatal(err)
	}
	s.subscriber, s.publisher = pubsubpb.NewSubscriberClient(conn), pubsubpb.NewPublisherClient(conn)
	listener, err := new(net.ListenConfig).Listen(h.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	server := grpc.NewServer()
	pubsubpb.RegisterSubscriberServer(server, s)
	pubsubpb.RegisterPublisherServer(server, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // until Stop
	}()
	h.t.Cleanup(func() { server.Stop(); <-done; conn.Close() })
	return listener.Addr().String()
}

func (s *shifted) Pull(ctx context.Context, r *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	if s.dates {
		if err := grpc.SetHeader(ctx, metadata.Pairs("date", time.Now().Add(s.ahead).UTC().Format(http.TimeFormat))); err != nil {
			return nil, err
		}
	}
	response, err := s.subscriber.Pull(ctx, r)
	for _, m := range response.GetReceivedMessages() {
		m.Message.PublishTime = timestamppb.New(m.GetMessage().GetPublishTime().AsTime().Add(s.ahead))
	}
	return response, err
}

func (s *shifted) Acknowledge(ctx context.Context, r *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	return s.subscriber.Acknowledge(ctx, r)
}

func (s *shifted) ModifyAckDeadline(ctx context.Context, r *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	return s.subscriber.ModifyAckDeadline(ctx, r)
}

func (s *shifted) Publish(ctx context.Context, r *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	response, err := s.publisher.Publish(ctx, r)
	if err == nil && s.onPublish != nil {
		s.onPublish(r.GetMessages())
	}
	return response, err
}

// TestReplayWithWrongClock: the clock of on-call's machine may be wrong. A replay publishes
// the messages that were in the queue at the start, and not those that it brings back
// itself.
func TestReplayWithWrongClock(t *testing.T) {
	for _, ahead := range []time.Duration{time.Minute, -time.Minute, time.Hour, 0} {
		for _, dates := range []bool{true, false} {
			for _, n := range []int{20, 2500} {
				t.Run(fmt.Sprintf("%v ahead, dates %v, %d messages", ahead, dates, n), func(t *testing.T) {
					t.Parallel()
					h := newTestQueue(t)
					for i := range n {
						h.put(deadLettered(i, goodData(i)))
					}
					s := &shifted{ahead: ahead, dates: dates}
					back := 0
					s.onPublish = func(messages []*pubsubpb.PubsubMessage) {
						for _, m := range messages {
							if back++; back > 10 {
								return
							}
							// As the worker does when it rejects an event again.
							m.Attributes["dlq_reason"], m.Attributes["dlq_detail"] = "invalid_event", "no"
							m.Attributes["dlq_replays"] = m.GetAttributes()["replay_count"]
							m.Attributes["dlq_message_id"], m.Attributes["dlq_publish_time"] = fmt.Sprint("again", back), "2026-11-20T11:00:00Z"
							h.put(m)
						}
					}
					env := h.environment("replay", "--yes", "--output", "json", "--stop-after", "0")
					var stdout, stderr strings.Builder
					env.Stdout, env.Stderr = &stdout, &stderr
					env.Vars = append(env.Vars, "PUBSUB_EMULATOR_HOST="+h.shift(s))
					run(t.Context(), env)
					if want := fmt.Sprintf("{\"matched\":%d,\"replayed\":%[1]d,\"failed\":0,\"left\":10}\n", n); stdout.String() != want {
						t.Errorf("got %s, want %s%.2000s", stdout.String(), want, stderr.String())
					}
				})
			}
		}
	}
}
