package provision

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// fixture is a Pub/Sub that tells what was asked of it.
type fixture struct {
	*pubsubserver.Server
	*Admin
	t *testing.T

	mu    sync.Mutex
	calls []string
	fault func(method string, req any) error
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	s, err := pubsubserver.Start(t.Context(), pubsubserver.Options{KeepSettings: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	admin, err := Connect(t.Context(), option.WithEndpoint(s.Addr()), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = admin.Close() })
	f := &fixture{Server: s, Admin: admin, t: t}
	s.SetFault(func(method string, req any) error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !strings.HasPrefix(method, "Get") {
			f.calls = append(f.calls, method)
		}
		if f.fault != nil {
			return f.fault(method, req)
		}
		return nil
	})
	return f
}

func (f *fixture) wrote() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *fixture) plan(n Needs) []Step {
	f.t.Helper()
	steps, err := Plan(f.t.Context(), f.Admin, n)
	if err != nil {
		f.t.Fatal(err)
	}
	return steps
}

func (f *fixture) apply(n Needs) []Step {
	f.t.Helper()
	done, err := Apply(f.t.Context(), f.Admin, n, f.plan(n))
	if err != nil {
		f.t.Fatal(err)
	}
	return done
}

func (f *fixture) get(name string) *pubsubpb.Subscription {
	f.t.Helper()
	s, err := f.Admin.Subscription(f.t.Context(), name)
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

func TestSetupFromNothing(t *testing.T) {
	f, n := newFixture(t), needs()
	steps := f.plan(n)
	if got := f.wrote(); len(got) != 0 {
		t.Errorf("planning did %q", got)
	}
	if Changes(steps) != 4 {
		t.Errorf("%d changes", Changes(steps))
	}
	var order []string
	f.mu.Lock()
	f.fault = func(_ string, req any) error {
		switch r := req.(type) {
		case *pubsubpb.Topic:
			order = append(order, r.GetName())
		case *pubsubpb.Subscription:
			order = append(order, r.GetName())
		}
		return nil
	}
	f.mu.Unlock()
	if _, err := Apply(t.Context(), f.Admin, n, steps); err != nil {
		t.Fatal(err)
	}
	f.wrote()
	// The dead-letter subscription exists before there is a topic to publish to.
	if want := []string{n.DeadLetterTopic, n.DeadLetterSubscription, n.Topic, n.Subscription}; !slices.Equal(order, want) {
		t.Errorf("in the order %q, want %q", order, want)
	}
	relay, oncall := f.get(n.Subscription), f.get(n.DeadLetterSubscription)
	for _, s := range SubscriptionSettings() {
		if j := s.Judge(relay, n); j.Verdict != OK {
			t.Errorf("%s is %+v", s.Name, j)
		}
	}
	for _, s := range DeadLetterSettings() {
		if j := s.Judge(oncall, n); j.Verdict != OK {
			t.Errorf("letters' %s is %+v", s.Name, j)
		}
	}
	again := f.apply(n)
	if got := f.wrote(); Changes(again) != 0 || len(got) != 0 {
		t.Errorf("again, it does %q", got)
	}
}

func TestSetupRepairs(t *testing.T) {
	f, n := newFixture(t), needs()
	f.apply(n)
	f.wrote()
	relay, oncall := f.get(n.Subscription), f.get(n.DeadLetterSubscription)
	for _, s := range []*pubsubpb.Subscription{relay, oncall} {
		s.AckDeadlineSeconds = 10
		s.MessageRetentionDuration = durationpb.New(day / 2)
		s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(31 * day)}
		s.RetryPolicy = &pubsubpb.RetryPolicy{}
		s.EnableExactlyOnceDelivery = true
		s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "https://example.com"}
		s.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{DeadLetterTopic: n.DeadLetterTopic, MaxDeliveryAttempts: 5}
		s.Labels = map[string]string{"team": "telemetry"}
		if err := f.SetSubscription(s); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, step := range f.apply(n) {
		for _, d := range step.Differences {
			got = append(got, d.Setting+": "+d.From+" → "+d.To)
		}
	}
	want := []string{
		"delivery: push → pull",
		"ack deadline: 10 seconds → 1 minute",
		"retention: 12 hours → 31 days",
		"expiration: after 31 days without activity → never",
		"retry policy: backoff of 10 seconds to 10 minutes → none: at once",
		"dead-letter policy: to projects/p/topics/dead after 5 attempts → none",
		"exactly-once delivery: on → off",
		"delivery: push → pull",
		"retention: 12 hours → 7 days",
		"expiration: after 31 days without activity → never",
		"retry policy: backoff of 10 seconds to 10 minutes → none: at once",
		"dead-letter policy: to projects/p/topics/dead after 5 attempts → to projects/p/topics/dead after 100 attempts",
		"exactly-once delivery: on → off",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if got := f.wrote(); !slices.Equal(got, []string{"UpdateSubscription", "UpdateSubscription"}) {
		t.Errorf("by %q", got)
	}
	if again := f.plan(n); Changes(again) != 0 {
		t.Errorf("again, %+v", again)
	}
	// Good settings, and settings of others, stay.
	if s := f.get(n.Subscription); s.GetAckDeadlineSeconds() != 10 || s.GetLabels()["team"] != "telemetry" {
		t.Errorf("got %v", s)
	}
}

// TestSetupIsStuck meets what cannot be changed.
func TestSetupIsStuck(t *testing.T) {
	f, n := newFixture(t), needs()
	f.apply(n)
	relay := f.get(n.Subscription)
	relay.EnableMessageOrdering = true
	if err := f.SetSubscription(relay); err != nil {
		t.Fatal(err)
	}
	f.wrote()
	steps := f.apply(n)
	if last := steps[3]; last.Action != Keep || len(last.Obstacles) != 1 || last.Obstacles[0].Setting != "ordering" || Stuck(steps) {
		t.Errorf("got %+v", steps)
	}
	relay.Filter = "attributes.a"
	relay.RetryPolicy = &pubsubpb.RetryPolicy{}
	if err := f.SetSubscription(relay); err != nil {
		t.Fatal(err)
	}
	steps = f.apply(n)
	last := steps[3]
	if last.Action != Change || len(last.Differences) != 1 || len(last.Obstacles) != 2 || !Stuck(steps) {
		t.Errorf("got %+v", last)
	}
	for _, o := range last.Obstacles {
		if !strings.Contains(o.Do, "create it anew") || o.Consequence == "" {
			t.Errorf("got %+v", o)
		}
	}
	if f.get(n.Subscription).GetRetryPolicy() != nil {
		t.Error("the retry policy is still there")
	}
}

// TestSetupKeepsDeadLetteredMessages creates no topic to publish to while dead-lettered messages would
// be lost.
func TestSetupKeepsDeadLetteredMessages(t *testing.T) {
	f, n := newFixture(t), needs()
	if err := f.Server.CreateTopic("projects/p/topics/other"); err != nil {
		t.Fatal(err)
	}
	if err := f.Server.CreateSubscription(n.DeadLetterSubscription, "projects/p/topics/other"); err != nil {
		t.Fatal(err)
	}
	done, err := Apply(t.Context(), f.Admin, n, f.plan(n))
	if err == nil || !strings.Contains(err.Error(), n.Topic+" is not created before "+n.DeadLetterSubscription+" is repaired") || len(done) != 2 {
		t.Errorf("%v after %+v", err, done)
	}
	if _, err := f.Admin.Topic(t.Context(), n.Topic); status.Code(err) != codes.NotFound {
		t.Errorf("the topic: %v", err)
	}
}

func TestSetupFails(t *testing.T) {
	for method, code := range map[string]codes.Code{
		"GetTopic": codes.PermissionDenied, "GetSubscription": codes.PermissionDenied,
		"CreateTopic": codes.PermissionDenied, "CreateSubscription": codes.AlreadyExists,
	} {
		f, n := newFixture(t), needs()
		f.mu.Lock()
		f.fault = func(m string, _ any) error {
			if m == method {
				return status.Error(code, "the reason")
			}
			return nil
		}
		f.mu.Unlock()
		steps, err := Plan(t.Context(), f.Admin, n)
		if err == nil {
			_, err = Apply(t.Context(), f.Admin, n, steps)
		}
		if err == nil || !strings.Contains(err.Error(), "the reason") || !strings.Contains(err.Error(), "projects/p/") {
			t.Errorf("%s: %v", method, err)
		}
		if method == "CreateSubscription" && !strings.Contains(err.Error(), "run this again") {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// TestSetupOfEmulator asks no more of an emulator than it takes.
func TestSetupOfEmulator(t *testing.T) {
	f, n := newFixture(t), needs()
	n.Emulator = true
	f.mu.Lock()
	f.fault = func(method string, req any) error {
		var sub *pubsubpb.Subscription
		switch r := req.(type) {
		case *pubsubpb.Subscription:
			sub = r
		case *pubsubpb.UpdateSubscriptionRequest:
			sub = r.GetSubscription()
			if slices.Contains(r.GetUpdateMask().GetPaths(), "expiration_policy") {
				return status.Error(codes.InvalidArgument, "not supported")
			}
		}
		if sub.GetMessageRetentionDuration().AsDuration() > 7*day {
			return status.Error(codes.InvalidArgument, "message_retention_duration out of bounds")
		}
		return nil
	}
	f.mu.Unlock()
	steps := f.apply(n)
	if d := steps[1].Differences[3]; d.To != "7 days, the maximum of an emulator" {
		t.Errorf("got %+v", d)
	}
	oncall := f.get(n.DeadLetterSubscription)
	oncall.MessageRetentionDuration = durationpb.New(day)
	oncall.ExpirationPolicy = &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(day)}
	oncall.RetryPolicy = &pubsubpb.RetryPolicy{}
	if err := f.SetSubscription(oncall); err != nil {
		t.Fatal(err)
	}
	steps = f.apply(n)
	if s := steps[1]; s.Action != Change || len(s.Differences) != 2 || len(s.Obstacles) != 1 || s.Obstacles[0].Setting != "expiration" || !Stuck(steps) {
		t.Errorf("got %+v", s)
	}
	if s := f.get(n.DeadLetterSubscription); s.GetRetryPolicy() != nil || retention(s) != 7*day {
		t.Errorf("got %v", s)
	}
}

func TestSetupIsInterrupted(t *testing.T) {
	f, n := newFixture(t), needs()
	ctx, cancel := context.WithCancel(t.Context())
	f.mu.Lock()
	f.fault = func(string, any) error { cancel(); return status.Error(codes.Unavailable, "down") }
	f.mu.Unlock()
	if _, err := Plan(ctx, f.Admin, n); err == nil {
		t.Error("no error")
	}
}

// TestTimeoutNamesLastError has the last call end a little before the context does: the error says
// is what was wrong before.
func TestTimeoutNamesLastError(t *testing.T) {
	f, n := newFixture(t), needs()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls := 0
	f.mu.Lock()
	f.fault = func(string, any) error {
		if calls++; calls == 1 {
			return status.Error(codes.Unavailable, "down")
		}
		time.AfterFunc(time.Millisecond, cancel)
		return status.Error(codes.DeadlineExceeded, "late")
	}
	f.mu.Unlock()
	if _, err := f.Admin.Topic(ctx, n.Topic); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

// TestSetupOptional creates the view and what receipts need where they are named, and
// their subscriptions before anything is published to their topics.
func TestSetupOptional(t *testing.T) {
	f, n := newFixture(t), allNeeds()
	var order []string
	for _, step := range f.apply(n) {
		order = append(order, string(step.Action)+" "+step.Name)
	}
	want := []string{
		"create " + n.DeadLetterTopic, "create " + n.DeadLetterSubscription, "create " + n.DeadLetterView,
		"create " + n.ReceiptsTopic, "create " + n.ReceiptsSubscription, "create " + n.Topic, "create " + n.Subscription,
	}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if s := f.get(n.DeadLetterView); s.GetTopic() != n.DeadLetterTopic || s.GetExpirationPolicy().GetTtl() != nil || s.GetExpirationPolicy() == nil {
		t.Errorf("the view is %v", s)
	}
	if s := f.get(n.ReceiptsSubscription); s.GetTopic() != n.ReceiptsTopic || s.GetMessageRetentionDuration().AsDuration() != Retention || s.GetExpirationPolicy().GetTtl() != nil {
		t.Errorf("the receipts are %v", s)
	}
	if again := f.apply(n); Changes(again) != 0 {
		t.Errorf("again, it does %+v", again)
	}

	// A bad view that setup cannot repair keeps nothing else from being created.
	view := f.get(n.DeadLetterView)
	view.Filter = "attributes.a"
	if err := f.SetSubscription(view); err != nil {
		t.Fatal(err)
	}
	if steps := f.apply(n); len(steps[2].Obstacles) != 1 || Stuck(steps) {
		t.Errorf("got %+v", steps[2])
	}

	// A subscription of receipts without their topic is on-call's, who need not know it.
	n = needs()
	n.ReceiptsSubscription = "projects/p/subscriptions/receipts-of-others"
	if steps := f.plan(n); len(steps) != 4 {
		t.Errorf("%d steps", len(steps))
	}
}
