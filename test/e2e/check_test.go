package e2e_test

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/gatewayserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// checked is the JSON output of check.
type checked struct {
	OK       bool           `json:"ok"`
	Counts   map[string]int `json:"counts"`
	Findings []struct {
		Check       string `json:"check"`
		Status      string `json:"status"`
		Resource    string `json:"resource"`
		Detail      string `json:"detail"`
		Consequence string `json:"consequence"`
		Do          string `json:"do"`
	} `json:"findings"`
}

// checks runs check, reads its one line, and returns the findings that are not ok, as
// "status check".
func checks(t *testing.T, environ []string, status int) (notOK []string) {
	t.Helper()
	got := execute(t, environ, nil, "check", "--output", "json").exits(status)
	if strings.Count(got.stdout, "\n") != 1 {
		t.Fatalf("not one line: %q", got.stdout)
	}
	d := json.NewDecoder(strings.NewReader(got.stdout))
	d.DisallowUnknownFields()
	var c checked
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range c.Findings {
		n++
		if f.Status != "ok" {
			notOK = append(notOK, f.Status+" "+f.Check)
		}
		if f.Status == "failure" && (f.Consequence == "" || f.Do == "") {
			t.Errorf("what is to be done? %+v", f)
		}
	}
	if c.OK != (status == 0) || n != c.Counts["ok"]+c.Counts["warning"]+c.Counts["failure"]+c.Counts["skipped"] {
		t.Errorf("the report does not agree with itself: %s", got.stdout)
	}
	return notOK
}

func wantNotOK(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("not ok:\n%q\nwant\n%q", got, want)
	}
}

// emulated lists the findings that an emulator and plain text on loopback cannot have.
var emulated = []string{
	"skipped permission to receive", "skipped permission to dead-letter", "skipped dead-letter subscription retention", "skipped gateway TLS",
}

// fresh are names of resources that do not exist.
var fresh = []string{"PUBSUB_TOPIC=new-events", "PUBSUB_SUBSCRIPTION=new-relay", "DLQ_TOPIC=new-dlq", "DLQ_SUBSCRIPTION=new-oncall"}

// TestSetupCreatesWhatCheckReports starts without any resources and ends with a worker that
// relays.
func TestSetupCreatesWhatCheckReports(t *testing.T) {
	h := newEnv(t)
	environ := h.environ(fresh...)

	wantNotOK(t, checks(t, environ, 1), "failure subscription", "skipped permission to receive", "skipped stream", "failure topic", "failure dead-letter topic",
		"skipped permission to dead-letter", "skipped dead-letter topic's subscriptions", "failure dead-letter subscription", "skipped gateway TLS")
	dry := execute(t, environ, nil, "setup", "--dry-run").exits(0)
	contains(t, dry.stdout, "create  topic "+h.topic("new-dlq"), "retention: 31 days", "4 would be created or changed")
	if _, err := h.topics.GetTopic(h.context(), &pubsubpb.GetTopicRequest{Topic: h.topic("new-dlq")}); status.Code(err) != codes.NotFound {
		t.Errorf("the dry run has made something: %v", err)
	}
	made := execute(t, environ, nil, "setup").exits(0)
	contains(t, made.stdout, "create  subscription "+h.subscription("new-relay"), "after 100 attempts", "7 days, the maximum of an emulator", "4 created or changed")
	again := execute(t, environ, nil, "setup", "--output", "json").exits(0)
	contains(t, again.stdout, `"changed":0`)
	wantNotOK(t, checks(t, environ, 0), emulated...)

	_, err := h.subs.UpdateSubscription(h.context(), &pubsubpb.UpdateSubscriptionRequest{
		Subscription: &pubsubpb.Subscription{
			Name: h.subscription("new-relay"), RetryPolicy: &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(5 * time.Second)},
			EnableExactlyOnceDelivery: true, MessageRetentionDuration: durationpb.New(time.Hour),
		},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"retry_policy", "enable_exactly_once_delivery", "message_retention_duration", "dead_letter_policy"}},
	})
	h.must(err)
	wantNotOK(t, checks(t, environ, 1), append([]string{"failure subscription retention", "warning subscription retry policy",
		"warning subscription dead-letter policy", "warning subscription exactly-once delivery"}, emulated...)...)
	text := execute(t, environ, nil, "check").exits(1)
	contains(t, text.stdout, "failure  subscription retention", "1 hour: an outage of the gateway that lasts longer loses events. To do: run worker setup", "1 failure,")
	repaired := execute(t, environ, nil, "setup").exits(0)
	contains(t, repaired.stdout, "retention: 1 hour → 7 days", "exactly-once delivery: on → off", "1 created or changed")
	wantNotOK(t, checks(t, environ, 0), emulated...)

	// The worker relays.
	execute(t, environ, strings.NewReader(`{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created"}}`+"\n"), "publish").exits(0)
	execute(t, environ, strings.NewReader(`{"data":{}}`+"\n"), "publish", "--as-is").exits(0)
	h.run(fresh...).exits(0).sums(summary{Received: 2, Submitted: 1, Rejected: map[string]int{"unknown_service": 1}, Ended: "drained"})
	contains(t, execute(t, environ, nil, "dlq", "stats").exits(0).stdout, "unknown_service")
}

// TestCheckReportsSettingsThatCannotChange has settings that setup cannot change.
func TestCheckReportsSettingsThatCannotChange(t *testing.T) {
	h := newEnv(t)
	_, err := h.subs.CreateSubscription(h.context(), &pubsubpb.Subscription{
		Name: h.subscription("odd"), Topic: h.topic(topicID), Filter: `attributes.service_id = "sams"`, EnableMessageOrdering: true,
		ExpirationPolicy: &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(48 * time.Hour)},
		DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: h.topic(dlqID), MaxDeliveryAttempts: 100},
	})
	h.must(err)
	environ := h.environ("PUBSUB_SUBSCRIPTION=odd")
	want := append([]string{"warning subscription expiration", "warning subscription ordering", "failure subscription filter",
		"skipped permission to receive", "skipped permission to dead-letter", "skipped dead-letter subscription retention", "skipped dead-letter subscription expiration"}, "skipped gateway TLS")
	wantNotOK(t, checks(t, environ, 1), want...)
	got := execute(t, environ, nil, "setup").exits(1)
	contains(t, got.stdout, `filter: attributes.service_id = "sams" (failure) cannot be changed`, "this emulator cannot change it", "create it anew")
	contains(t, got.stderr, "a setting that loses events cannot be changed")
}

// TestCheckReportsPermissionsAndTLS runs check against a Pub/Sub with permissions and a
// gateway behind TLS.
func TestCheckReportsPermissionsAndTLS(t *testing.T) {
	h := newEnv(t)
	pubsub, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	h.must(err)
	t.Cleanup(func() { h.check(pubsub.Close()) })
	web := httptest.NewTLSServer(http.NotFoundHandler()) // lends its certificate
	t.Cleanup(web.Close)
	gateway, err := gatewayserver.Start(t.Context(), gatewayserver.Options{
		Introspector: h.sams, TLS: &tls.Config{Certificates: web.TLS.Certificates, MinVersion: tls.VersionTLS12},
	})
	h.must(err)
	t.Cleanup(func() { h.check(gateway.Close()) })
	roots := filepath.Join(t.TempDir(), "ca.pem")
	h.must(os.WriteFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}), 0o600))

	environ := h.environ("PUBSUB_EMULATOR_HOST="+pubsub.Addr(), "TELEMETRY_GATEWAY_URL="+gateway.URL(), "SSL_CERT_FILE="+roots)
	execute(t, environ, nil, "setup").exits(0)
	wantNotOK(t, checks(t, environ, 0))
	text := execute(t, environ, nil, "check").exits(0)
	contains(t, text.stdout, "TLS 1.3, certificate good until", "holds pubsub.subscriptions.consume", "0 warnings, 0 failures, 0 skipped")

	pubsub.SetPermit(func(_, permission string) bool { return permission != "pubsub.topics.publish" })
	wantNotOK(t, checks(t, environ, 1), "failure permission to dead-letter")
	if n := gateway.Stats(); n.Recorded != 0 {
		t.Errorf("check has recorded events: %+v", n)
	}
}

// TestCheckNamesUnavailableDependencies requires that check names the dependency that is
// unavailable.
func TestCheckNamesUnavailableDependencies(t *testing.T) {
	h := newEnv(t)
	got := execute(t, h.environ("SAMS_CLIENT_SECRET=very-wrong-secret"), nil, "check").exits(1)
	contains(t, got.stdout, "SAMS refuses the client (HTTP 401, invalid_client)", "check SAMS_CLIENT_ID and SAMS_CLIENT_SECRET")
	if strings.Contains(got.stdout+got.stderr, "very-wrong-secret") {
		t.Error("the secret is shown")
	}
	nobody := freeAddr(t)
	got = execute(t, h.environ("TELEMETRY_GATEWAY_URL=http://"+nobody, "PUBSUB_EMULATOR_HOST="+nobody), nil, "check", "--timeout", "2s").exits(1)
	contains(t, got.stdout, "Pub/Sub", "does not answer: Unavailable", "failure  gateway", "2 failures,")
}

func TestCheckAndSetupRefuseWrongUsage(t *testing.T) {
	h := newEnv(t)
	for _, c := range []struct {
		args string
		vars []string
		want string
	}{
		{"check extra", nil, "takes no arguments"},
		{"check --output xml", nil, "expected text or json"},
		{"check --timeout 0s", nil, "expected a positive duration"},
		{"check", []string{"SAMS_CLIENT_ID="}, "SAMS_CLIENT_ID: is required"},
		{"setup extra", nil, "takes no arguments"},
		{"setup", []string{"GOOGLE_CLOUD_PROJECT="}, "GOOGLE_CLOUD_PROJECT: is required"},
		{"setup", []string{"PUBSUB_EMULATOR_HOST="}, "expected --yes or --dry-run"},
	} {
		got := execute(t, h.environ(c.vars...), nil, strings.Fields(c.args)...).exits(2)
		contains(t, got.stderr, c.want)
		if got.stdout != "" {
			t.Errorf("%s prints %s", c.args, got.stdout)
		}
	}
	wantNotOK(t, checks(t, h.environ("SAMS_CLIENT_ID="), 2), "failure configuration")
}
