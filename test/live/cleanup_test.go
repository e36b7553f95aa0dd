package live_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/iterator"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/tlsfront"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// present returns the names of all topics and subscriptions of a project.
func present(t *testing.T, tg target) (names []string) {
	t.Helper()
	c, err := connect(t.Context(), tg.options()...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.close() }()
	topics := c.topics.ListTopics(t.Context(), &pubsubpb.ListTopicsRequest{Project: "projects/" + tg.project})
	for {
		topic, err := topics.Next()
		if errors.Is(err, iterator.Done) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, topic.GetName())
	}
	subs := c.subs.ListSubscriptions(t.Context(), &pubsubpb.ListSubscriptionsRequest{Project: "projects/" + tg.project})
	for {
		sub, err := subs.Next()
		if errors.Is(err, iterator.Done) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, sub.GetName())
	}
}

// creates is a row that creates a topic and a subscription, and then does something.
func creates(id string, then func() (answer, error)) row {
	return row{id: id, situation: id, ask: func(ctx context.Context, p *place) (answer, error) {
		if _, _, err := p.queue(ctx, nil); err != nil {
			return answer{}, err
		}
		return then()
	}}
}

// TestResourcesAreAlwaysDeleted has rows that succeed, fail and panic.
func TestResourcesAreAlwaysDeleted(t *testing.T) {
	ofItself(t)
	tg := localTarget(embedded, startEmbedded(t, pubsubserver.Options{}).Addr())
	rep, err := run(t.Context(), tg, []row{
		creates("good", func() (answer, error) { return same("well") }),
		creates("other", func() (answer, error) { return differs("otherwise") }),
		creates("broken", func() (answer, error) { return answer{}, errors.New("a\n\tfault") }),
		creates("panics", func() (answer, error) { panic("at the row") }),
	}, testLog{t})
	if err != nil || len(rep.left) > 0 {
		t.Errorf("%v, left: %v", err, rep.left)
	}
	for i, want := range []verdict{isSame, isOther, failed, failed} {
		if got := rep.results[i]; got.verdict != want {
			t.Errorf("%s: %s: %s", got.situation, got.verdict, got.did)
		}
	}
	if got := rep.results[3].did; !strings.Contains(got, "at the row") {
		t.Errorf("the panic is %q", got)
	}
	if left := present(t, tg); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestRemainingResourcesAreNamed: a resource that was not deleted, or perhaps not, is named
// with the command that deletes it.
func TestRemainingResourcesAreNamed(t *testing.T) {
	ofItself(t)
	for name, c := range map[string]struct {
		fault    func(s *pubsubserver.Server, method string, req any) error
		why      string
		commands []string
	}{
		"not deleted": {func(_ *pubsubserver.Server, method string, _ any) error {
			if method == "DeleteSubscription" {
				return status.Error(codes.PermissionDenied, "not yours")
			}
			return nil
		}, "not yours", []string{"gcloud pubsub subscriptions delete telemetry-relay-live-"}},
		"not known": {func(_ *pubsubserver.Server, method string, _ any) error {
			if method == "GetTopic" {
				return status.Error(codes.PermissionDenied, "not yours")
			}
			return nil
		}, "whether it is gone cannot be asked", []string{"gcloud pubsub topics delete telemetry-relay-live-"}},
		"still there": {func(s *pubsubserver.Server, method string, req any) error {
			if method == "GetTopic" {
				_ = s.CreateTopic(req.(*pubsubpb.GetTopicRequest).GetTopic()) // it may be there already
			}
			return nil
		}, "it is still there after its deletion", []string{"gcloud pubsub topics delete telemetry-relay-live-"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startEmbedded(t, pubsubserver.Options{})
			tg := localTarget(embedded, s.Addr())
			c1, err := connect(t.Context(), tg.options()...)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c1.close() }()
			e := newEstate(c1, tg.project)
			e.settle = 500 * time.Millisecond
			if _, _, err := (&place{target: tg, estate: e, row: "row"}).queue(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			s.SetFault(func(method string, req any) error { return c.fault(s, method, req) })
			var out bytes.Buffer
			left := e.clean(t.Context(), &out)
			if len(left) != len(c.commands) || !strings.Contains(left[0].err.Error(), c.why) {
				t.Fatalf("left: %v", left)
			}
			for _, command := range c.commands {
				if text := out.String(); !strings.Contains(text, command) || !strings.Contains(text, " --project="+tg.project+"\n") || !strings.Contains(text, "Deleted 1 of the 2") {
					t.Errorf("want %q in:\n%s", command, text)
				}
			}
			s.SetFault(nil)
			if again := e.clean(t.Context(), &out); len(again) != 0 || len(present(t, tg)) != 0 {
				t.Errorf("left at last: %v", again)
			}
		})
	}
}

// TestRefusedResourceIsNotDeleted: after Pub/Sub has refused to create a resource, the test
// does not try to delete it, which Pub/Sub would refuse, too.
func TestRefusedResourceIsNotDeleted(t *testing.T) {
	ofItself(t)
	s := startEmbedded(t, pubsubserver.Options{})
	tg := localTarget(embedded, s.Addr())
	s.SetFault(func(method string, _ any) error {
		if method == "CreateSubscription" {
			return status.Error(codes.InvalidArgument, "no")
		}
		if method == "DeleteSubscription" {
			return status.Error(codes.PermissionDenied, "not yours, or not there")
		}
		return nil
	})
	rep, err := run(t.Context(), tg, []row{creates("refused", func() (answer, error) { return same("well") })}, testLog{t})
	if err != nil || len(rep.left) > 0 || rep.results[0].verdict != failed {
		t.Errorf("%v, left %v, %+v", err, rep.left, rep.results[0])
	}
}

// itself runs this test binary, as go test does, with only TestPubSubBehavesAsAssumed.
func itself(ctx context.Context, t *testing.T, args ...string) (*exec.Cmd, *testenv.Buffer) {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var output testenv.Buffer
	cmd := exec.CommandContext(ctx, path, append([]string{"-test.run=^TestPubSubBehavesAsAssumed$", "-test.v"}, args...)...)
	cmd.Stdout, cmd.Stderr = &output, &output
	return cmd, &output
}

// built is the flag with the worker that these tests have built.
func built(t *testing.T) string {
	t.Helper()
	path, err := worker.path(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return "-live.worker=" + path
}

// TestInterruptDeletesResources sends Ctrl-C while a worker drains. All resources must be
// deleted, and the worker must end.
func TestInterruptDeletesResources(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs programs of its own")
	}
	ofItself(t)
	s := startEmbedded(t, pubsubserver.Options{})
	tg := localTarget(embedded, s.Addr())
	ctx, cancel := context.WithTimeout(t.Context(), 2*cleanupTime)
	defer cancel()
	cmd, output := itself(ctx, t, "-live.emulator="+tg.endpoint, "-live.project="+tg.project, "-live.row=worker run", built(t))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	draining := func() bool {
		return slices.ContainsFunc(present(t, tg), func(name string) bool { return strings.HasSuffix(name, "-drain-4") && s.Streams(name) > 0 })
	}
	for !draining() {
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			t.Fatalf("no worker drains:\n%s", output)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	text := output.String()
	if err == nil || cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text, "interrupted") || strings.Contains(text, "NOT DELETED") {
		t.Errorf("%v:\n%s", err, text)
	}
	if left := present(t, tg); len(left) > 0 {
		t.Errorf("left: %q\n%s", left, text)
	}
	for deadline := time.Now().Add(5 * time.Second); len(s.Front().Peers()) > 0; { // the server notices a moment later
		if time.Now().After(deadline) {
			t.Fatalf("there are still %d connections", len(s.Front().Peers()))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestCustomEndpointNeedsTLS runs the test like a person with a project: with TLS,
// credentials, and an endpoint of its own, here of an embedded server.
func TestCustomEndpointNeedsTLS(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs programs of its own")
	}
	ofItself(t)
	s := startEmbedded(t, pubsubserver.Options{})
	front := tlsfront.Start(t, s.Addr())
	cmd, output := itself(t.Context(), t, "-live.project=somebodys", "-live.region=us-east1", "-live.endpoint="+front.Endpoint, "-live.row=worker check", built(t))
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+front.Roots, "GOOGLE_APPLICATION_CREDENTIALS="+tlsfront.ServiceAccountKey(t),
		"PUBSUB_EMULATOR_HOST=127.0.0.1:1") // which must not lead anybody astray
	err := cmd.Run()
	text := output.String()
	if err != nil || !strings.Contains(text, "ok: answered a ping") || !strings.Contains(text, "Deleted 4 of the 4") ||
		!strings.Contains(text, "Asking Pub/Sub at "+front.Endpoint+", project somebodys.") {
		t.Errorf("%v:\n%s", err, text)
	}
	if left := present(t, target{kind: embedded, project: "somebodys", endpoint: s.Addr()}); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestBadFlagsAreRefused: bad flags are refused before any resource is created. Without
// flags the test is skipped.
func TestBadFlagsAreRefused(t *testing.T) {
	ofItself(t)
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"nothing":       {nil, 0, "no real Pub/Sub is asked without -live.project; docs/live.md says what that needs"},
		"no region":     {[]string{"-live.project=p", "-live.region=Mars"}, 1, `-live.region: expected a region such as us-east1, got "Mars"`},
		"too much":      {[]string{"-live.project=p", "-live.region=us-east1", "-live.emulator=127.0.0.1:1"}, 1, "-live.emulator goes with neither"},
		"too little":    {[]string{"-live.project=p", "-live.emulator=127.0.0.1:1", "-test.timeout=2m"}, 1, "it may take 6m0s: run it with -timeout 9m0s"},
		"no such row":   {[]string{"-live.project=p", "-live.emulator=127.0.0.1:1", "-live.row=nonsense"}, 1, "nothing was asked"},
		"long: timeout": {[]string{"-live.project=p", "-live.long", "-test.timeout=10m"}, 1, "it may take 20m0s: run it with -timeout 23m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, output := itself(t.Context(), t, c.args...)
			_ = cmd.Run() // the status is what is asked for
			if text := output.String(); cmd.ProcessState.ExitCode() != c.code || !strings.Contains(text, c.says) {
				t.Errorf("exit %d, want %d and %q:\n%s", cmd.ProcessState.ExitCode(), c.code, c.says, text)
			}
		})
	}
}

// TestDifferencesAreReported has a server that behaves differently. The table must name the
// documents, files and tests to check.
func TestDifferencesAreReported(t *testing.T) {
	ofItself(t)
	s := startEmbedded(t, pubsubserver.Options{DeliveryLease: time.Second})
	s.SetFault(func(method string, _ any) error {
		if method == "Pull" {
			return pubsubserver.ErrEmpty
		}
		return nil
	})
	s.RefuseStreams(-1, status.Error(codes.PermissionDenied, "no"))
	tg := localTarget(embedded, s.Addr())
	var asked []row
	for _, r := range rows {
		if r.id == "first" || r.id == "missing" || r.id == "pulls" {
			asked = append(asked, r)
		}
	}
	rep, err := run(t.Context(), tg, asked, testLog{t})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rep.results {
		if r.verdict != isOther {
			t.Errorf("%s: %s: %s", r.situation, r.verdict, r.did)
		}
	}
	text := table(rep.results)
	for _, want := range []string{"DIFFERS", "refused: PermissionDenied", "none of them brings it", "internal/devstack/pubsubserver/stream.go", "docs/pubsub.md, \"Refusals\""} {
		if !strings.Contains(text, want) {
			t.Errorf("want %q in:\n%s", want, text)
		}
	}
}
