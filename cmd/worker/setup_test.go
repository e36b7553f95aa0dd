package main

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/provision"
)

// TestSetupChangesNothingWithoutConsent runs setup on a Pub/Sub that is no emulator, with a
// person who answers.
func TestSetupChangesNothingWithoutConsent(t *testing.T) {
	server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	admin, err := provision.Connect(t.Context(), option.WithEndpoint(server.Addr()), option.WithoutAuthentication(), option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	needs := provision.Needs{
		Topic: "projects/p/topics/events", Subscription: "projects/p/subscriptions/relay",
		DeadLetterTopic: "projects/p/topics/dead", DeadLetterSubscription: "projects/p/subscriptions/oncall",
	}
	answer := func(text string) (stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		s := setup{env: environment{command.Env{Stdin: strings.NewReader(text), Stdout: &out, Stderr: &errs}}, needs: needs}
		if err := s.run(t.Context(), admin); err != nil {
			t.Fatal(err)
		}
		return out.String(), errs.String()
	}
	for _, no := range []string{"", "\n", "n\n", "what?\n"} {
		stdout, stderr := answer(no)
		if stdout != "" || !strings.Contains(stderr, "create  topic projects/p/topics/dead") || !strings.Contains(stderr, "4 resources will be created or changed. Go on? [y/N]") {
			t.Errorf("answer %q:\n%s%s", no, stdout, stderr)
		}
		if _, err := admin.Topic(t.Context(), needs.DeadLetterTopic); status.Code(err) != codes.NotFound {
			t.Fatalf("answer %q: the topic: %v", no, err)
		}
	}
	if stdout, _ := answer("y\n"); !strings.Contains(stdout, "4 created or changed\nThe dead-letter policy works once Pub/Sub's service agent") {
		t.Errorf("answer yes:\n%s", stdout)
	}
	if stdout, stderr := answer(""); !strings.HasSuffix(stdout, "\nnothing to change\n") || stderr != "" {
		t.Errorf("again:\n%s%s", stdout, stderr)
	}
}
