package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

func TestVersionIsPrinted(t *testing.T) {
	t.Parallel()
	got := execute(t, nil, nil, "version").exits(0)
	contains(t, got.stdout, buildVersion, "commit", runtime.Version())
	got = execute(t, nil, nil, "version", "--output", "json").exits(0)
	var v struct{ Version, Commit, Go string }
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil {
		t.Fatal(err)
	}
	if v.Version != buildVersion || v.Commit == "" || v.Go != runtime.Version() {
		t.Errorf("got %+v", v)
	}
	if got.stderr != "" {
		t.Errorf("stderr: %s", got.stderr)
	}
}

func TestHelpIsPrinted(t *testing.T) {
	t.Parallel()
	alone := execute(t, nil, nil).exits(0)
	if help := execute(t, nil, nil, "--help").exits(0); help.stdout != alone.stdout {
		t.Errorf("`worker` alone does not print the help:\n%s", alone.stdout)
	}
	for _, command := range []string{"run", "publish", "version"} {
		t.Run(command, func(t *testing.T) {
			contains(t, alone.stdout, "\n   "+command+" ")
			got := execute(t, nil, nil, command, "--help").exits(0)
			contains(t, got.stdout, "Example", "worker "+command)
		})
	}
}

func TestWrongUsageIsRefused(t *testing.T) {
	t.Parallel()
	environ := []string{"GOOGLE_CLOUD_PROJECT=p", "PUBSUB_EMULATOR_HOST=127.0.0.1:1"}
	for _, args := range [][]string{
		{"bogus"},
		{"--bogus"},
		{"run", "--bogus"},
		{"run", "argument"},
		{"publish", "--bogus"},
		{"publish", "--output", "xml"},
		{"publish", "one", "two"},
		{"publish", "/no/such/file"},
		{"version", "--output", "yaml"},
		{"version", "argument"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			got := execute(t, environ, nil, args...).exits(2)
			if got.stderr == "" {
				t.Error("nothing on stderr")
			}
			if got.stdout != "" {
				t.Errorf("stdout: %s", got.stdout)
			}
		})
	}
	got := execute(t, nil, strings.NewReader("{}"), "publish").exits(2)
	contains(t, got.stderr, "GOOGLE_CLOUD_PROJECT")
}

// TestPublishReportsBadLines publishes good and bad lines from stdin. The good ones must
// arrive, and the bad ones be reported with their numbers.
func TestPublishReportsBadLines(t *testing.T) {
	h := newEnv(t)
	input := strings.Join([]string{
		`{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created"}}`, // 1
		`{"attributes":{"service_id":"sams"},"data":{"feature":"Sams","action":"created"}}`,      // 2: invalid
		``, // 3
		`{"attributes":{"service_id":"nobody"},"data":{"feature":"sams.user","action":"created"}}`, // 4: unknown
		`not JSON`, // 5
		`{"attributes":{"service_id":"sams"},"data":{"feature":"a","action":"b"},"dataBase64":"e30="}`,         // 6: both
		`{"attributes":{"service_id":"sams"},"date":{}}`,                                                       // 7: unknown key
		`{"attributes":{"service_id":1},"data":{}}`,                                                            // 8: wrong type
		`{"attributes":{"service_id":"sams"},"dataBase64":"eyJmZWF0dXJlIjoic2FtcyIsImFjdGlvbiI6InNlbnQifQ=="}`, // 9
		`{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"deleted"},"orderingKey":"k"}`,
	}, "\n") // the last line has no break
	got := execute(t, h.environ(), strings.NewReader(input), "publish", "--output", "json", "-").exits(1)
	for _, n := range []int{2, 4, 5, 6, 7, 8} {
		contains(t, got.stderr, fmt.Sprintf("stdin:%d: ", n))
	}
	for _, n := range []int{1, 3, 9, 10} {
		omits(t, got.stderr, fmt.Sprintf("stdin:%d: ", n))
	}
	contains(t, got.stderr, "invalid_event", "unknown_service")
	var counts map[string]int
	h.must(json.Unmarshal([]byte(got.stdout), &counts))
	if counts["published"] != 3 || counts["invalid"] != 6 {
		t.Errorf("stdout: %s", got.stdout)
	}
	var data []string
	for _, m := range h.ledger(3) {
		data = append(data, string(m.GetData())+" "+m.GetOrderingKey())
	}
	contains(t, strings.Join(data, "\n"), `{"feature":"sams.user","action":"created"} `, `{"feature":"sams","action":"sent"} `,
		`{"feature":"sams.user","action":"deleted"} k`)
}

// TestPublishAsIsKeepsEveryByte publishes messages that no decoder accepts, and compares
// every byte.
func TestPublishAsIsKeepsEveryByte(t *testing.T) {
	h := newEnv(t)
	messages := []*pubsubpb.PubsubMessage{
		named("", "only", "attributes"),
		named("\x00\xff\xfe"),
		named("[1, 2]", "service_id", "", "é", "ü\n\u2028<>&\""),
		named("{ \"a\" :  1e400, \"a\":2 }", "service_id", "nobody"),
		named("null"),
		{Data: []byte("ordered"), OrderingKey: "key"},
		{Data: random(3_000_000)},
	}
	want := map[string]bool{}
	var lines []byte
	for _, m := range messages {
		lines = append(lines, line(t, m)...)
		want[fingerprint(m)] = true
	}
	// Data that is a JSON object may be in the line without encoding.
	lines = append(lines, "{\"data\":{ \"raw\" : [ 1.50 , \"\\u0061<\" ] },\"attributes\":{\"a\":\"b\"}}\r\n"...)
	want[fingerprint(&pubsubpb.PubsubMessage{Data: []byte(`{ "raw" : [ 1.50 , "\u0061<" ] }`), Attributes: map[string]string{"a": "b"}})] = true

	path := filepath.Join(t.TempDir(), "lines.ndjson")
	h.must(os.WriteFile(path, lines, 0o600))
	got := execute(t, h.environ(), nil, "publish", "--as-is", path).exits(0)
	if got.stderr != "" {
		t.Errorf("stderr: %s", got.stderr)
	}
	for _, m := range h.ledger(len(want)) {
		if !want[fingerprint(m)] {
			t.Errorf("nobody published %.200q", fingerprint(m))
		}
	}
	bad := execute(t, h.environ(), bytes.NewReader([]byte("{}\n{\"data\":{}}\n")), "publish", "--as-is").exits(1)
	contains(t, bad.stderr, "stdin:1: ")
	omits(t, bad.stderr, "stdin:2: ")
}

// TestPublishToAMissingTopicFails has no topic.
func TestPublishToAMissingTopicFails(t *testing.T) {
	h := newEnv(t)
	input := `{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created"}}`
	got := execute(t, h.environ("PUBSUB_TOPIC=no-such-topic"), strings.NewReader(input), "publish").exits(1)
	contains(t, got.stderr, "line 1", "no-such-topic")
}

// TestServicesAreReadFromAFile takes services.yaml from a file.
func TestServicesAreReadFromAFile(t *testing.T) {
	h := newEnv(t)
	path := filepath.Join(t.TempDir(), "services.yaml")
	h.must(os.WriteFile(path, []byte("unknownServices: allow\nservices:\n  - id: sams\n    environments: [prod]\n"), 0o600))
	h.publish(named(string(event(0).GetData()), "service_id", "brand-new"), named(string(event(1).GetData()), "service_id", "sams"))
	h.run("WORKER_SERVICES=", "WORKER_SERVICES_FILE="+path).exits(0).
		sums(summary{Received: 2, Submitted: 1, Rejected: map[string]int{"policy_violation": 1}, Ended: "drained"})
	h.once(0, 1)
	h.deadLetters(1)
}

// TestEmbeddedServicesAreTheDefault runs without any services.yaml but the embedded one.
func TestEmbeddedServicesAreTheDefault(t *testing.T) {
	h := newEnv(t)
	h.publish(named(string(event(0).GetData()), "service_id", "sams"), named(string(event(1).GetData()), "service_id", "strict"))
	h.run("WORKER_SERVICES=").exits(0).
		sums(summary{Received: 2, Submitted: 1, Rejected: map[string]int{"unknown_service": 1}, Ended: "drained"})
	h.once(0, 1)
}
