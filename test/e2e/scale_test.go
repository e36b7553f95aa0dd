package e2e_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/creack/pty"

	samples "github.com/sourcegraph/telemetry-relay/internal/devstack/sample"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

var (
	scaleMessages = flag.Int("scale.messages", 4000, "how many messages TestScale puts into the queue")
	scaleSlow     = flag.Duration("scale.slow", 0, "how long TestScale's slow replay takes, beyond the leases' minute; 0 leaves out all but three commands")
	scaleLarge    = flag.Int("scale.large", 0, "how many messages of 9 MB TestScaleLarge puts into the queue")
)

// Of every so many messages, one is rejected by the gateway, one is of sams, and one has a
// field that must be deleted. The others cannot be fixed.
const scaleShare = 20

// TestScale measures the commands on a full queue: their duration and memory, whether they
// show progress, and whether a lease ends on the way.
// docs/dead-letter-scale.md has the figures of
//
//	go test ./test/e2e -run 'TestScale$' -scale.messages=100000 -scale.slow=150s -v -timeout 30m
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures a program that is built without the race detector")
	}
	n, share, all := *scaleMessages, *scaleMessages/scaleShare, *scaleSlow > 0
	s := &scale{env: newEnv(t), left: n, dir: t.TempDir()}
	s.proxy = newCountingProxy(t, s.env)
	size := s.fill(n)
	t.Logf("%d messages, %.0f bytes of data each on average", n, float64(size)/float64(n))
	t.Logf("%7s %7s %10s %6s %8s %8s  worker dlq …", "seconds", "peak MB", "messages/s", "twice", "renewed", "progress")

	m := s.measure("stats", "--output", "json")
	contains(t, m.stdout, fmt.Sprintf(`"count":%d,`, s.left))
	if all {
		m = s.measure("list", "--output", "ndjson")
		if got := strings.Count(m.stdout, "\n"); got != s.left {
			t.Errorf("list has %d lines, want %d", got, s.left)
		}
	}
	s.plan(share)
	if all {
		s.replay(share, "--reason", "gateway_rejected")
		s.replay(share, "--service", "sams", "--rate", strconv.Itoa(max(1, int(float64(share)/scaleSlow.Seconds()))))
		s.lines("export.ndjson", s.measure("export", "--output", "json", filepath.Join(s.dir, "export.ndjson")),
			`{"matched":%[1]d,"exported":%[1]d,"failed":0,"left":%[1]d}`)
	}
	s.lines("backup.ndjson", s.measure("purge", "--all", "--yes", "--output", "json", "--backup", filepath.Join(s.dir, "backup.ndjson")),
		`{"matched":%[1]d,"purged":%[1]d,"failed":0,"left":0}`)
	s.take(dlqSubID, 0)
	s.take(ledgerID, n-s.left)
}

// TestScaleLarge has messages of the largest possible size. Those that Pub/Sub delivers at
// once must fit into memory.
//
//	go test ./test/e2e -run TestScaleLarge -scale.large=40 -v
func TestScaleLarge(t *testing.T) {
	if *scaleLarge == 0 {
		t.Skip("It needs much memory for the emulator; ask for it by -scale.large=40.")
	}
	s := &scale{env: newEnv(t), left: *scaleLarge, dir: t.TempDir()}
	s.proxy = newCountingProxy(t, s.env)
	for range s.left {
		_, err := s.topics.Publish(s.context(), &pubsubpb.PublishRequest{Topic: s.topic(dlqID), Messages: []*pubsubpb.PubsubMessage{{
			Data: random(9_000_000), Attributes: map[string]string{"service_id": "sams", "dlq_reason": "malformed_payload"},
		}}})
		s.must(err)
	}
	s.measure("stats")
	s.lines("export.ndjson", s.measure("export", "--output", "json", filepath.Join(s.dir, "export.ndjson")),
		`{"matched":%[1]d,"exported":%[1]d,"failed":0,"left":%[1]d}`)
	s.measure("replay", "--yes", "--no-check")
	s.take(dlqSubID, 0)
	s.take(ledgerID, s.left)
}

// scale is an env with a full dead-letter queue.
type scale struct {
	*env
	proxy *countingProxy
	left  int // messages in the queue
	dir   string
}

// measure runs a command that reads the whole queue.
func (s *scale) measure(args ...string) measured {
	s.t.Helper()
	m := s.env.measure(s.proxy, args...)
	command := strings.ReplaceAll(strings.Join(args, " "), s.dir+"/", "")
	s.t.Logf("%7.1f %7.1f %10.0f %6d %8d %8d  %s", m.took.Seconds(), float64(m.peak)/1e6, float64(s.left)/m.took.Seconds(), m.twice, m.renewed, m.progress, command)
	if m.status != 0 {
		s.t.Errorf("%s: exit status %d:\n%s", command, m.status, clip(m.stderr))
	}
	if m.delivered != s.left || m.twice != 0 {
		s.t.Errorf("%s: %d messages were delivered, and %d times one that was still leased; want %d, and none", command, m.delivered, m.twice, s.left)
	}
	if m.progress == 0 {
		s.t.Errorf("%s: no progress is shown", command)
	}
	return m
}

// replay replays this many messages.
func (s *scale) replay(want int, args ...string) {
	s.t.Helper()
	m := s.measure(append([]string{"replay", "--yes", "--output", "json"}, args...)...)
	s.left -= want
	contains(s.t, m.stdout, fmt.Sprintf(`{"matched":%[1]d,"replayed":%[1]d,"failed":0,"left":%d}`, want, s.left))
}

// plan plans to correct and to replay this many messages, and applies the plan.
func (s *scale) plan(want int) {
	s.t.Helper()
	fixes, path := filepath.Join(s.dir, "fixes.yaml"), filepath.Join(s.dir, "plan.json")
	s.must(os.WriteFile(fixes, fmt.Appendf(nil, "%s: {jq: del(.typo)}\n", fault.Of("invalid_event", "cody-gateway", "typo: unknown field").ID()), 0o600))
	m := s.measure("plan", "--fix", fixes, "-o", path, "--output", "json")
	contains(s.t, m.stdout, fmt.Sprintf(`"matched":%[1]d,"replay":%[1]d,"purge":0,`, want))
	m = s.measure("apply", path, "--yes", "--canary", "0", "--output", "json")
	contains(s.t, m.stdout, fmt.Sprintf(`"matched":%[1]d,"replayed":%[1]d,"purged":0,"failed":0,"todo":0`, want))
	s.left -= want
}

// lines requires that a command has written all messages, and says so.
func (s *scale) lines(file string, m measured, says string) {
	s.t.Helper()
	contains(s.t, m.stdout, fmt.Sprintf(says, s.left))
	content, err := os.ReadFile(filepath.Join(s.dir, file))
	s.must(err)
	if got := bytes.Count(content, []byte("\n")); got != s.left {
		s.t.Errorf("%s has %d lines, want %d", file, got, s.left)
	}
}

// fill fills the queue as the worker does, and returns how many bytes of data the messages
// have.
func (h *env) fill(n int) (size int) {
	h.t.Helper()
	events, err := samples.Events(n)
	h.must(err)
	rejected := time.Date(2026, time.November, 22, 2, 0, 0, 0, time.UTC)
	var request []*pubsubpb.PubsubMessage
	for i, e := range events {
		a := map[string]string{
			"dlq_reason": "invalid_event", "dlq_detail": fmt.Sprintf("metadata.n%d: expected a number, got a string", i%3),
			"dlq_rejected_at": rejected.Add(time.Duration(i) * time.Millisecond).Format(time.RFC3339Nano), "dlq_attempts": "0",
			"dlq_message_id": strconv.Itoa(1_000_000_000 + i), "dlq_publish_time": "2026-11-22T01:59:59.123456Z",
			"dlq_subscription": h.subscription(subID), "dlq_worker_version": buildVersion,
		}
		maps.Copy(a, e.Attributes)
		a["service_id"] = "cody-gateway"
		data := e.Data
		switch i % scaleShare {
		case 0:
			a["service_id"], a["dlq_reason"], a["dlq_attempts"] = "pings", "gateway_rejected", "5"
			a["dlq_detail"] = "the gateway left the event out 5 times while it took others"
		case 1:
			a["service_id"] = "sams"
		case 2:
			data = []byte(fmt.Sprintf(`{"feature":"typo.fixed","action":"sent","id":%q,"typo":%d}`, eventID(i), i))
			a["dlq_detail"] = "typo: unknown field"
		}
		size += len(data)
		request = append(request, &pubsubpb.PubsubMessage{Data: data, Attributes: a})
		if len(request) == 1000 || i == n-1 {
			_, err := h.topics.Publish(h.context(), &pubsubpb.PublishRequest{Topic: h.topic(dlqID), Messages: request})
			h.must(err)
			request = nil
		}
	}
	return size
}

// measured is the cost of a command.
type measured struct {
	status           int
	stdout, stderr   string
	took             time.Duration
	peak             int64 // largest resident memory, in bytes
	delivered, twice int
	renewed          int
	progress         int // how many different counts of messages were shown
}

// measure runs a command with a terminal to write its progress to.
func (h *env) measure(s *countingProxy, args ...string) measured {
	h.t.Helper()
	s.reset()
	terminal, stderr, err := pty.Open()
	h.must(err)
	defer terminal.Close()
	var stdout, shown testenv.Buffer
	cmd := exec.Command(workerBinary, append([]string{"dlq"}, args...)...)
	cmd.Env = h.environ("SAMS_CLIENT_ID=", "SAMS_CLIENT_SECRET=", "LOG_LEVEL=info", "PUBSUB_EMULATOR_HOST="+s.addr)
	cmd.Stdout, cmd.Stderr = &stdout, stderr
	began := time.Now()
	h.must(cmd.Start())
	stderr.Close() // the command has its own copy
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = bufio.NewReader(terminal).WriteTo(&shown) // ends with an error when the command has ended
	}()
	var m measured
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // the status is checked below
	}()
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case <-time.After(10 * time.Millisecond):
		}
		// The rusage of the process would include the peak of the test's own memory, which
		// the process shared until it became the worker.
		m.peak = max(m.peak, peakOf(cmd.Process.Pid))
	}
	<-read
	m.took = time.Since(began)
	m.status, m.stdout, m.stderr = cmd.ProcessState.ExitCode(), stdout.String(), shown.String()
	m.delivered, m.twice, m.renewed = s.counted()
	counts := map[string]bool{}
	for _, count := range regexp.MustCompile(`\((\d+)/`).FindAllStringSubmatch(m.stderr, -1) {
		counts[count[1]] = true
	}
	m.progress = len(counts)
	return m
}

// peakOf returns the largest resident memory of a process so far, in bytes; 0 if it has
// ended.
func peakOf(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	var kilobytes int64
	if _, rest, ok := strings.Cut(string(status), "VmHWM:"); ok {
		_, _ = fmt.Sscan(rest, &kilobytes) // a process that has ended has none
	}
	return kilobytes << 10
}
