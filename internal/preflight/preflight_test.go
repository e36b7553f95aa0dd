package preflight

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	pubsub "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.uber.org/goleak"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/provision"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait, so more of them than there are processors may run.
	if flag.Lookup("test.parallel").Value.String() == flag.Lookup("test.parallel").DefValue {
		_ = flag.Set("test.parallel", "8") // a flag of the testing package's own
	}
	goleak.VerifyTestMain(m,
		// A dependency of the client starts it when the program does.
		goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"),
	)
}

const (
	topicName = "projects/p/topics/events"
	subName   = "projects/p/subscriptions/relay"
	dlqName   = "projects/p/topics/dead"
)

func needs() provision.Needs {
	return provision.Needs{Subscription: subName, DeadLetterTopic: dlqName, Topic: topicName, TopicGiven: true}
}

type fixture struct {
	*pubsubserver.Server
	t    *testing.T
	wait time.Duration

	mu  sync.Mutex
	log bytes.Buffer
}

func (f *fixture) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.Write(b)
}

func (f *fixture) logged() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.log.String()
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	s, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for _, err := range []error{s.CreateTopic(topicName), s.CreateTopic(dlqName), s.CreateSubscription(subName, topicName)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return &fixture{Server: s, t: t}
}

func (f *fixture) options() []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(f.Addr()),
		option.WithoutAuthentication(),
		option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

func (f *fixture) run(ctx context.Context, n provision.Needs) error {
	return Run(ctx, n, f.wait, slog.New(slog.NewTextHandler(f, nil)), f.options()...)
}

// wantLines checks that the error has exactly these lines, given by their parts.
func wantLines(t *testing.T, err error, want ...string) {
	t.Helper()
	var got []string
	if err != nil {
		got = strings.Split(err.Error(), "\n")
	}
	ok := len(got) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = strings.Contains(got[i], want[i])
	}
	if !ok {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAllIsThere(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	wantLines(t, f.run(t.Context(), needs()))
	if got := f.logged(); got != "" {
		t.Errorf("logged %s", got)
	}
}

func TestMissingResourcesAreFound(t *testing.T) {
	t.Parallel()
	const other = "-missing"
	noSub := "PUBSUB_SUBSCRIPTION: the subscription " + subName + other + " does not exist"
	noDLQ := "DLQ_TOPIC: the dead-letter topic " + dlqName + other + " does not exist"
	noTopic := "PUBSUB_TOPIC: the topic " + topicName + other + " does not exist"
	for _, c := range []struct {
		name   string
		change func(*provision.Needs)
		want   []string
	}{
		{"subscription", func(n *provision.Needs) { n.Subscription += other }, []string{noSub}},
		{"dead-letter topic", func(n *provision.Needs) { n.DeadLetterTopic += other }, []string{noDLQ}},
		{"topic", func(n *provision.Needs) { n.Topic += other }, []string{noTopic}},
		{"everything", func(n *provision.Needs) {
			n.Subscription, n.DeadLetterTopic, n.Topic = n.Subscription+other, n.DeadLetterTopic+other, n.Topic+other
		}, []string{noSub, noDLQ, noTopic}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := needs()
			c.change(&n)
			wantLines(t, newFixture(t).run(t.Context(), n), c.want...)
		})
	}
	t.Run("the topic by default", func(t *testing.T) {
		f := newFixture(t)
		n := needs()
		n.Topic, n.TopicGiven = topicName+other, false
		wantLines(t, f.run(t.Context(), n))
		if got := f.logged(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, topicName+other) {
			t.Errorf("logged %s", got)
		}
	})
}

func TestDeletedTopic(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	topics, err := pubsub.NewTopicAdminClient(t.Context(), f.options()...)
	if err != nil {
		t.Fatal(err)
	}
	defer topics.Close()
	if err := topics.DeleteTopic(t.Context(), &pubsubpb.DeleteTopicRequest{Topic: topicName}); err != nil {
		t.Fatal(err)
	}
	n := needs()
	n.TopicGiven = false
	wantLines(t, f.run(t.Context(), n), "the topic of the subscription "+subName+" was deleted")
}

func TestMissingPermissionsAreFound(t *testing.T) {
	t.Parallel()
	noConsume := "PUBSUB_SUBSCRIPTION: the worker does not have the permission pubsub.subscriptions.consume on " + subName
	noPublish := "DLQ_TOPIC: the worker does not have the permission pubsub.topics.publish on " + dlqName
	for _, c := range []struct {
		name   string
		denied string // permissions
		want   []string
	}{
		{"consume", "pubsub.subscriptions.consume", []string{noConsume}},
		{"publish", "pubsub.topics.publish", []string{noPublish}},
		{"both", "pubsub.subscriptions.consume pubsub.topics.publish", []string{noConsume, noPublish}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.SetPermit(func(_, permission string) bool { return !strings.Contains(c.denied, permission) })
			wantLines(t, f.run(t.Context(), needs()), c.want...)
		})
	}
	t.Run("to publish to the topic of events is not needed", func(t *testing.T) {
		f := newFixture(t)
		f.SetPermit(func(resource, _ string) bool { return resource != topicName })
		wantLines(t, f.run(t.Context(), needs()))
	})
	t.Run("not served by an emulator", func(t *testing.T) {
		f := newFixture(t)
		f.fail(map[string]error{"TestIamPermissions": status.Error(codes.Unimplemented, "unknown service")})
		wantLines(t, f.run(t.Context(), needs()))
	})
	t.Run("cannot be asked", func(t *testing.T) {
		f := newFixture(t)
		f.fail(map[string]error{"TestIamPermissions": status.Error(codes.InvalidArgument, "the reason")})
		wantLines(t, f.run(t.Context(), needs()),
			"whether the worker has the permission pubsub.subscriptions.consume on "+subName+" cannot be asked",
			"whether the worker has the permission pubsub.topics.publish on "+dlqName+" cannot be asked")
	})
	t.Run("unknown to the permissions' service", func(t *testing.T) {
		f := newFixture(t)
		f.fail(map[string]error{"TestIamPermissions": status.Error(codes.NotFound, "none")})
		wantLines(t, f.run(t.Context(), needs()), "PUBSUB_SUBSCRIPTION: "+subName+" does not exist", "DLQ_TOPIC: "+dlqName+" does not exist")
	})
}

// fail makes methods fail.
func (f *fixture) fail(errs map[string]error) {
	f.SetFault(func(method string, _ any) error { return errs[method] })
}

func TestSettingsMayBeUnreadable(t *testing.T) {
	t.Parallel()
	denied := status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
	errs := map[string]error{"GetSubscription": denied, "GetTopic": denied}
	f := newFixture(t)
	f.fail(errs)
	wantLines(t, f.run(t.Context(), needs()))
	got := f.logged()
	if n := strings.Count(got, "level=WARN"); n != 2 || !strings.Contains(got, subName) || !strings.Contains(got, dlqName) {
		t.Errorf("logged %s", got)
	}
	// The permissions are asked for nevertheless, and tell what is missing, too.
	f.SetPermit(func(string, string) bool { return false })
	wantLines(t, f.run(t.Context(), needs()), "pubsub.subscriptions.consume", "pubsub.topics.publish")
}

func TestOtherFaults(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fail(map[string]error{"GetSubscription": status.Error(codes.InvalidArgument, "the reason")})
	wantLines(t, f.run(t.Context(), needs()), "PUBSUB_SUBSCRIPTION: the subscription "+subName+" cannot be used: rpc error: code = InvalidArgument desc = the reason")
}

func TestRunWaitsForResources(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{codes.Unavailable, codes.Internal, codes.ResourceExhausted} {
		for _, method := range []string{"GetSubscription", "TestIamPermissions"} {
			t.Run(code.String()+" of "+method, func(t *testing.T) {
				t.Parallel()
				f := newFixture(t)
				var mu sync.Mutex
				failures := 0
				f.SetFault(func(m string, _ any) error {
					mu.Lock()
					defer mu.Unlock()
					if m == method && failures < 2 {
						failures++
						return status.Error(code, "down")
					}
					return nil
				})
				wantLines(t, f.run(t.Context(), needs()))
				// It says so once, not for every question.
				if got := f.logged(); failures != 2 || strings.Count(got, "level=WARN") != 1 || !strings.Contains(got, "asking again") {
					t.Errorf("%d failures, logged %s", failures, got)
				}
			})
		}
	}
}

func TestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.fail(map[string]error{"GetSubscription": status.Error(codes.Unavailable, "down")})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := f.run(ctx, needs())
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if strings.Contains(err.Error(), "DLQ_TOPIC") {
		t.Errorf("what was not asked is blamed: %v", err)
	}
}
