package preflight

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/provision"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

const dlqSubName = "projects/p/subscriptions/oncall"

func allNeeds() provision.Needs {
	n := needs()
	n.DeadLetterSubscription = dlqSubName
	return n
}

func plain(addr string) []option.ClientOption {
	return []option.ClientOption{
		option.WithEndpoint(addr), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
	}
}

// newProvisioned is a Pub/Sub as setup leaves it.
func newProvisioned(t *testing.T) *fixture {
	t.Helper()
	s, err := pubsubserver.Start(t.Context(), pubsubserver.Options{KeepSettings: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f := &fixture{Server: s, t: t}
	f.admin(func(a *provision.Admin) {
		steps, err := provision.Plan(t.Context(), a, allNeeds())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := provision.Apply(t.Context(), a, allNeeds(), steps); err != nil {
			t.Fatal(err)
		}
	})
	return f
}

func (f *fixture) admin(use func(*provision.Admin)) {
	f.t.Helper()
	a, err := provision.Connect(f.t.Context(), plain(f.Addr())...)
	if err != nil {
		f.t.Fatal(err)
	}
	defer a.Close()
	use(a)
}

// change changes a subscription's settings behind everybody's back.
func (f *fixture) change(name string, change func(*pubsubpb.Subscription)) {
	f.t.Helper()
	f.admin(func(a *provision.Admin) {
		s, err := a.Subscription(f.t.Context(), name)
		if err != nil {
			f.t.Fatal(err)
		}
		change(s)
		if err := f.SetSubscription(s); err != nil {
			f.t.Fatal(err)
		}
	})
}

func (f *fixture) check(n provision.Needs) []Finding {
	return PubSub(f.t.Context(), n, plain(f.Addr())...)
}

// wantFindings makes sure of everything that is not ok, in the form "status
// check: part of the detail".
func wantFindings(t *testing.T, got []Finding, want ...string) {
	t.Helper()
	var notOK []Finding
	for _, f := range got {
		if f.Status != provision.OK {
			notOK = append(notOK, f)
		} else if f.Do != "" || f.Consequence != "" || f.Detail == "" {
			t.Errorf("ok, and yet %+v", f)
		}
		if f.Status == provision.Failure && (f.Do == "" || f.Consequence == "") {
			t.Errorf("what is to be done? %+v", f)
		}
		if strings.ContainsAny(f.Detail+f.Consequence+f.Do, "\n\t") {
			t.Errorf("not on a line: %+v", f)
		}
	}
	same := len(notOK) == len(want)
	for i := 0; same && i < len(want); i++ {
		head, detail, _ := strings.Cut(want[i], ": ")
		same = head == string(notOK[i].Status)+" "+notOK[i].Check && strings.Contains(notOK[i].Detail, detail)
	}
	if !same {
		t.Errorf("got %+v\nwant %q", notOK, want)
	}
}

func TestCheckAllIsWell(t *testing.T) {
	t.Parallel()
	got := newProvisioned(t).check(allNeeds())
	wantFindings(t, got)
	for _, check := range []string{
		"subscription", "subscription ack deadline", "subscription retention", "subscription expiration", "subscription retry policy",
		"subscription dead-letter policy", "subscription exactly-once delivery", "subscription ordering", "subscription filter",
		"permission to receive", "stream", "topic", "dead-letter topic", "permission to dead-letter", "dead-letter topic's subscriptions",
		"dead-letter subscription", "dead-letter subscription retention", "dead-letter subscription expiration",
	} {
		if !slices.ContainsFunc(got, func(f Finding) bool { return f.Check == check }) {
			t.Errorf("nothing is said of %q", check)
		}
	}
}

// TestCheckSettings has a server tell each setting that is not well.
func TestCheckSettings(t *testing.T) {
	t.Parallel()
	f := newProvisioned(t)
	for _, c := range []struct {
		setting, detail string
		relay, dlq      provision.Verdict
		change          func(*pubsubpb.Subscription)
	}{
		{"topic", "deleted", provision.Failure, provision.Failure, func(s *pubsubpb.Subscription) { s.Topic = "_deleted-topic_" }},
		{"attachment", "detached", provision.Failure, provision.Failure, func(s *pubsubpb.Subscription) { s.Detached = true }},
		{"delivery", "push", provision.Failure, provision.Failure, func(s *pubsubpb.Subscription) {
			s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "https://example.com"}
		}},
		{"ack deadline", "10 seconds", provision.OK, provision.Warning, func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 10 }},
		{"retention", "10 minutes", provision.Failure, provision.Failure, func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(10 * time.Minute) }},
		{"retention", "7 days", provision.OK, provision.Warning, func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(7 * 24 * time.Hour) }},
		{"expiration", "after 31 days", provision.Warning, provision.Failure, func(s *pubsubpb.Subscription) { s.ExpirationPolicy = nil }},
		{"retry policy", "backoff of 10 seconds to 10 minutes", provision.Warning, provision.Warning, func(s *pubsubpb.Subscription) { s.RetryPolicy = &pubsubpb.RetryPolicy{} }},
		{"dead-letter policy", "after 5 attempts", provision.Warning, provision.Warning, func(s *pubsubpb.Subscription) {
			s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: dlqName, MaxDeliveryAttempts: 5}
		}},
		{"dead-letter policy", "none", provision.Warning, provision.OK, func(s *pubsubpb.Subscription) { s.DeadLetterPolicy = nil }},
		{"exactly-once delivery", "on", provision.Warning, provision.Warning, func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true }},
		{"ordering", "on", provision.Warning, provision.Warning, func(s *pubsubpb.Subscription) { s.EnableMessageOrdering = true }},
		{"filter", "attributes.a", provision.Failure, provision.Failure, func(s *pubsubpb.Subscription) { s.Filter = "attributes.a" }},
	} {
		for name, kind := range map[string]struct {
			check string
			want  provision.Verdict
		}{subName: {"subscription", c.relay}, dlqSubName: {"dead-letter subscription", c.dlq}} {
			t.Run(c.setting+" of "+kind.check, func(t *testing.T) {
				var before *pubsubpb.Subscription
				f.change(name, func(s *pubsubpb.Subscription) {
					before = &pubsubpb.Subscription{Name: s.Name, Topic: s.Topic, AckDeadlineSeconds: s.AckDeadlineSeconds,
						MessageRetentionDuration: s.MessageRetentionDuration, ExpirationPolicy: s.ExpirationPolicy, DeadLetterPolicy: s.DeadLetterPolicy}
					c.change(s)
				})
				var want []string
				if kind.want != provision.OK {
					want = append(want, string(kind.want)+" "+kind.check+" "+c.setting+": "+c.detail)
				}
				wantFindings(t, f.check(allNeeds()), want...)
				if err := f.SetSubscription(before); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestCheckMissing(t *testing.T) {
	t.Parallel()
	const missing = "-missing"
	f := newProvisioned(t)
	n := allNeeds()
	n.Subscription += missing
	wantFindings(t, f.check(n), "failure subscription: does not exist", "skipped permission to receive: there is no subscription", "skipped stream: there is no subscription")
	n = allNeeds()
	n.Topic += missing
	wantFindings(t, f.check(n), "failure subscription topic: projects/p/topics/events, not", "failure topic: does not exist")
	n.TopicGiven = false
	wantFindings(t, f.check(n), "warning subscription topic: projects/p/topics/events, not", "warning topic: does not exist, and is only the default")
	n = allNeeds()
	n.DeadLetterSubscription += missing
	wantFindings(t, f.check(n), "failure dead-letter subscription: does not exist")
	n = allNeeds()
	n.DeadLetterTopic += missing
	wantFindings(t, f.check(n), "warning subscription dead-letter policy: to projects/p/topics/dead",
		"failure dead-letter topic: does not exist", "skipped permission to dead-letter: there is no topic", "skipped dead-letter topic's subscriptions: there is no topic",
		"failure dead-letter subscription topic: projects/p/topics/dead, not")
	// A topic without any subscription swallows what is published to it.
	n = allNeeds()
	n.DeadLetterTopic = "projects/p/topics/bare"
	if err := f.CreateTopic(n.DeadLetterTopic); err != nil {
		t.Fatal(err)
	}
	wantFindings(t, f.check(n), "warning subscription dead-letter policy: to projects/p/topics/dead",
		"failure dead-letter topic's subscriptions: there is none", "failure dead-letter subscription topic: projects/p/topics/dead, not")
}

func TestCheckPermissions(t *testing.T) {
	t.Parallel()
	f := newProvisioned(t)
	f.SetPermit(func(_, permission string) bool { return permission != provision.ConsumePermission })
	wantFindings(t, f.check(allNeeds()), "failure permission to receive: lacks pubsub.subscriptions.consume")
	f.SetPermit(func(resource, _ string) bool { return resource == subName })
	wantFindings(t, f.check(allNeeds()), "failure permission to dead-letter: lacks pubsub.topics.publish")
	f.SetPermit(nil)

	f.fail(map[string]error{"TestIamPermissions": status.Error(codes.Unimplemented, "")})
	wantFindings(t, f.check(allNeeds()), "skipped permission to receive: the emulator does not know", "skipped permission to dead-letter: the emulator does not know")
	f.fail(map[string]error{"TestIamPermissions": status.Error(codes.InvalidArgument, "the\nreason")})
	wantFindings(t, f.check(allNeeds()), "failure permission to receive: cannot be asked: InvalidArgument: the reason", "failure permission to dead-letter: cannot be asked")

	denied := status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
	f.fail(map[string]error{"GetSubscription": denied, "GetTopic": denied, "ListTopicSubscriptions": denied})
	wantFindings(t, f.check(allNeeds()), "warning subscription: may not be read", "skipped topic: may not be read", "warning dead-letter topic: may not be read",
		"skipped dead-letter topic's subscriptions: may not be asked", "warning dead-letter subscription: may not be read")
	f.fail(map[string]error{"GetSubscription": status.Error(codes.Unauthenticated, "who are you?")})
	wantFindings(t, f.check(allNeeds()), "failure subscription: Unauthenticated: who are you?", "failure dead-letter subscription: Unauthenticated")
}

func TestCheckReportsOutages(t *testing.T) {
	t.Parallel()
	addr, err := testenv.FreeAddr() // nothing listens there
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	wantFindings(t, PubSub(ctx, allNeeds(), plain(addr)...), "failure Pub/Sub: does not answer: ", "skipped topics, subscriptions and permissions: Pub/Sub does not answer")

	// The check waits for a server that returns meanwhile.
	f := newProvisioned(t)
	var failures atomic.Int64
	f.SetFault(func(string, any) error {
		if failures.Add(1) < 3 {
			return status.Error(codes.Unavailable, "down")
		}
		return nil
	})
	wantFindings(t, f.check(allNeeds()))
}

// TestCheckOptional: the view and the receipts are checked where they are named; what is
// wrong with them is no failure.
func TestCheckOptional(t *testing.T) {
	t.Parallel()
	f := newProvisioned(t)
	n := allNeeds()
	n.DeadLetterView, n.ReceiptsTopic, n.ReceiptsSubscription = "projects/p/subscriptions/view", "projects/p/topics/receipts", "projects/p/subscriptions/receipts"
	wantFindings(t, f.check(n),
		"warning dead-letter view: does not exist", "warning receipts topic: does not exist", "warning receipts subscription: does not exist")

	if err := f.CreateTopic(n.ReceiptsTopic); err != nil {
		t.Fatal(err)
	}
	f.SetPermit(func(resource, _ string) bool { return resource != n.ReceiptsTopic })
	wantFindings(t, f.check(n),
		"warning dead-letter view: does not exist", "warning permission to publish receipts: lacks pubsub.topics.publish",
		"warning receipts topic's subscriptions: there is none", "warning receipts subscription: does not exist")
	f.SetPermit(nil)

	f.admin(func(a *provision.Admin) {
		steps, err := provision.Plan(t.Context(), a, n)
		if err == nil {
			_, err = provision.Apply(t.Context(), a, n, steps)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	got := f.check(n)
	wantFindings(t, got)
	for _, check := range []string{"dead-letter view", "dead-letter view expiration", "receipts topic", "permission to publish receipts", "receipts topic's subscriptions", "receipts subscription", "receipts subscription retention"} {
		if !slices.ContainsFunc(got, func(f Finding) bool { return f.Check == check }) {
			t.Errorf("nothing is said of %q", check)
		}
	}
	f.change(n.DeadLetterView, func(s *pubsubpb.Subscription) { s.Filter = "attributes.a" })
	wantFindings(t, f.check(n), "warning dead-letter view filter: attributes.a")

	// A worker that does not know the subscription of its receipts.
	n.ReceiptsSubscription, n.DeadLetterView = "", ""
	wantFindings(t, f.check(n))
}
