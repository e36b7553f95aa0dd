package e2e_test

import (
	"encoding/json"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// checkedStream runs check with both kinds of output, and returns the line and the
// finding about the stream from Pub/Sub.
func checkedStream(t *testing.T, environ []string, exit int) (line string, status, detail, do string) {
	t.Helper()
	text := execute(t, environ, nil, "check").exits(exit)
	for l := range strings.Lines(text.stdout) {
		if fields := strings.Fields(l); len(fields) > 1 && fields[1] == "stream" {
			line = strings.TrimSuffix(l, "\n")
		}
	}
	var report checked
	if err := json.Unmarshal([]byte(execute(t, environ, nil, "check", "--output", "json").exits(exit).stdout), &report); err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		if f.Check == "stream" {
			status, detail, do = f.Status, f.Detail, f.Do
		}
	}
	return line, status, detail, do
}

// TestCheckReportsTheStream requires that check opens a stream as run does, and reports the
// result.
func TestCheckReportsTheStream(t *testing.T) {
	h := newEnv(t)
	server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	h.must(err)
	t.Cleanup(func() { h.check(server.Close()) })
	environ := h.environ("PUBSUB_EMULATOR_HOST=" + server.Addr())
	execute(t, environ, nil, "setup").exits(0)

	for _, c := range []struct {
		name                 string
		prepare              func()
		exit                 int
		status, detail, todo string
	}{
		{"an answer", func() {}, 0, "ok", "answered a ping", ""},
		{"a message", func() {
			_, err := server.Publish(h.topic(topicID), event(1))
			h.must(err)
		}, 0, "ok", "brought one message, given back at once", ""},
		{"a refusal that passes", func() {
			server.SetFault(firstOpening(status.Error(codes.PermissionDenied, "not yet")))
		}, 0, "ok", "after an opening that failed: PermissionDenied: not yet", ""},
		{"a refusal that lasts", func() {
			server.SetFault(nil)
			server.RefuseStreams(-1, status.Error(codes.Unimplemented, "unexpected HTTP status code received from server: 404 (Not Found)"))
		}, 1, "failure", "refused: Unimplemented: unexpected HTTP status code received from server: 404 (Not Found)",
			"check PUBSUB_ENDPOINT and proxies: something that is not Pub/Sub seems to answer"},
	} {
		c.prepare()
		line, verdict, detail, do := checkedStream(t, environ, c.exit)
		if verdict != c.status || !strings.HasSuffix(detail, c.detail) || do != c.todo {
			t.Errorf("%s: %s, %s, to do: %s", c.name, verdict, detail, do)
		}
		if !strings.HasPrefix(line, c.status+" ") || !strings.Contains(line, detail) || !strings.HasSuffix(line, c.todo) {
			t.Errorf("%s: the line is %q", c.name, line)
		}
		if got := server.Stats(h.subscription(subID)); got.Leased != 0 || got.Acked != 0 {
			t.Errorf("%s: check has kept or acknowledged something: %+v", c.name, got)
		}
	}

	// Google's emulator answers no pings.
	_, verdict, detail, _ := checkedStream(t, h.environ(), 0)
	if verdict != "ok" || detail != "was accepted, and did not answer a ping, as emulators do not" {
		t.Errorf("emulator: %s, %s", verdict, detail)
	}
	h.publish(events(0, 1)...)
	_, verdict, detail, _ = checkedStream(t, h.environ(), 0)
	if verdict != "ok" || detail != "brought one message, given back at once" {
		t.Errorf("emulator with an event: %s, %s", verdict, detail)
	}
	h.run().exits(0).sums(summary{Received: 1, Submitted: 1, Ended: "drained"})
}

// firstOpening refuses the first stream of each client.
func firstOpening(err error) pubsubserver.FaultFunc {
	seen := map[string]bool{} // client ids; check opens its streams one after the other
	return func(_ string, req any) error {
		o, is := req.(pubsubserver.Opening)
		if !is || seen[o.Request.GetClientId()] {
			return nil
		}
		seen[o.Request.GetClientId()] = true
		return err
	}
}
