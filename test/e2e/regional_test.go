package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/tlsfront"
)

// TestEveryCommandUsesTheRegionalEndpoint requires that every command uses Pub/Sub at
// PUBSUB_ENDPOINT, with TLS and credentials, like the global one.
func TestEveryCommandUsesTheRegionalEndpoint(t *testing.T) {
	h := newEnv(t)
	server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	h.must(err)
	t.Cleanup(func() { h.check(server.Close()) })
	front := tlsfront.Start(t, server.Addr())
	environ := h.environ("PUBSUB_EMULATOR_HOST=", "PUBSUB_ENDPOINT="+front.Endpoint, "SSL_CERT_FILE="+front.Roots,
		"GOOGLE_APPLICATION_CREDENTIALS="+tlsfront.ServiceAccountKey(t), "WORKER_DRAIN_IDLE=2s")
	// used requires that the command has called the endpoint.
	used := func(command string) {
		t.Helper()
		names := front.Names()
		if len(names) == 0 {
			t.Errorf("%s did not come to the endpoint", command)
		}
		for _, name := range names {
			if name != "localhost" {
				t.Errorf("%s asked for the server %q", command, name)
			}
		}
	}

	execute(t, environ, nil, "setup", "--yes").exits(0)
	used("setup")
	execute(t, environ, nil, "check").exits(0)
	used("check")
	lines := `{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created"}}` + "\n" + `{"data":{}}` + "\n"
	execute(t, environ, strings.NewReader(lines), "publish", "--as-is").exits(0)
	used("publish")
	execute(t, environ, nil, "run").exits(0).sums(summary{Received: 2, Submitted: 1, Rejected: map[string]int{"unknown_service": 1}, Ended: "drained"})
	used("run")
	contains(t, execute(t, environ, nil, "dlq", "stats").exits(0).stdout, "unknown_service")
	used("dlq stats")
	execute(t, environ, nil, "dlq", "replay", "--yes", "--no-check").exits(0)
	used("dlq replay")

	for _, args := range [][]string{{"run"}, {"publish"}, {"setup"}, {"check"}, {"dlq", "stats"}} {
		got := execute(t, append(environ, "PUBSUB_EMULATOR_HOST="+server.Addr()), strings.NewReader(""), args...).exits(2)
		contains(t, got.stderr, "PUBSUB_ENDPOINT: is set together with PUBSUB_EMULATOR_HOST")
	}
}

// TestRunWaitsForCredentials requires that the worker waits for credentials, which may come
// a little later than the worker. Without any the run ends, and names the expected ones.
func TestRunWaitsForCredentials(t *testing.T) {
	t.Run("until they come", func(t *testing.T) {
		h := newEnv(t)
		server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
		h.must(err)
		t.Cleanup(func() { h.check(server.Close()) })
		for _, err := range []error{
			server.CreateTopic(h.topic(topicID)), server.CreateTopic(h.topic(dlqID)), server.CreateSubscription(h.subscription(subID), h.topic(topicID)),
		} {
			h.must(err)
		}
		front := tlsfront.Start(t, server.Addr())
		key := filepath.Join(t.TempDir(), "later.json")
		p := start(t, h.environ("PUBSUB_EMULATOR_HOST=", "PUBSUB_ENDPOINT="+front.Endpoint, "SSL_CERT_FILE="+front.Roots,
			"GOOGLE_APPLICATION_CREDENTIALS="+key), nil, "run")
		p.says("missing; waiting for it")
		h.must(os.Rename(tlsfront.ServiceAccountKey(t), key))
		p.wait().exits(0).sums(summary{Ended: "drained"})
	})
	t.Run("for good", func(t *testing.T) {
		h := newEnv(t)
		got := execute(t, h.environ("PUBSUB_EMULATOR_HOST=", "GOOGLE_APPLICATION_CREDENTIALS="+filepath.Join(t.TempDir(), "none.json")), nil, "run").exits(1)
		contains(t, got.stderr, "missing; waiting for it", "no credentials for Google Cloud", "GOOGLE_APPLICATION_CREDENTIALS")
		got.sums(summary{Ended: "error"})
		if got.took < 15*time.Second || got.took > 15*time.Second+busy {
			t.Errorf("it ended after %v, want 15s", got.took)
		}
	})
	t.Run("until the end", func(t *testing.T) {
		h := newEnv(t)
		p := start(t, h.environ("PUBSUB_EMULATOR_HOST=", "GOOGLE_APPLICATION_CREDENTIALS="+filepath.Join(t.TempDir(), "none.json")), nil, "run")
		p.says("missing; waiting for it")
		p.stop(syscall.SIGTERM).exits(0).sums(summary{Ended: "signal"})
	})
}
