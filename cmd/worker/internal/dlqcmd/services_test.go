package dlqcmd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
)

const (
	// newList and oldList are services lists of a worker.
	newList = "{services: [{id: sams}, {id: extra}]}"
	oldList = "{services: [{id: sams, owner: team-sams, runbook: 'https://r'}]}" // that of testQueue.environment
)

func digestOf(t *testing.T, yaml string) string {
	t.Helper()
	set, err := servicesyaml.Parse([]byte(yaml))
	if err != nil {
		t.Fatal(err)
	}
	return set.Digest()
}

// TestOtherServicesListIsRefused: a replay with another list than that of the newest
// rejection is refused. If the list itself is the fault, the difference is only reported.
func TestOtherServicesListIsRefused(t *testing.T) {
	older, newer := digestOf(t, oldList), digestOf(t, newList)
	rejected := func(i int, digest string, hour int, attributes ...string) []string {
		return append([]string{"dlq_services_digest", digest, "dlq_rejected_at", fmt.Sprintf("2026-11-20T%02d:00:00Z", hour)}, attributes...)
	}
	for name, c := range map[string]struct {
		digests  []string // of messages, in the order of their rejection
		reason   string
		args     []string
		status   int
		says     string
		replayed int
	}{
		"the same list":              {[]string{newer, older}, "invalid_event", nil, 0, "checked with the services list " + older + ", from WORKER_SERVICES", 2},
		"another list":               {[]string{older, newer}, "invalid_event", nil, 1, "the running worker has another services list, " + newer, 0},
		"another list, anyway":       {[]string{older, newer}, "invalid_event", []string{"--services-anyway"}, 0, "warning: the running worker has another services list", 2},
		"another list, no check":     {[]string{older, newer}, "invalid_event", []string{"--no-check"}, 0, "", 2},
		"another list, its fault":    {[]string{newer}, "unknown_service", nil, 0, "note: the running worker has another services list", 1},
		"another list, the rule":     {[]string{newer}, "policy_violation", nil, 0, "note: the running worker has another services list", 1},
		"another list, canary":       {[]string{older, newer}, "invalid_event", []string{"--canary", "1", "--canary-wait", "1ms"}, 1, "another services list", 0},
		"a worker that does not say": {[]string{""}, "invalid_event", nil, 0, "is not known", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTestQueue(t)
			for i, digest := range c.digests {
				h.put(deadLettered(i, goodData(i), rejected(i, digest, 10+i, "dlq_reason", c.reason)...))
			}
			// A message that claims a rejection in the future does not hide the others.
			if c.digests[0] != "" {
				h.put(deadLettered(9, goodData(9), "dlq_services_digest", c.digests[0], "dlq_rejected_at", "2026-11-20T05:00:00Z", "service_id", "other", "dlq_reason", c.reason))
			}
			dry := h.dlq(t.Context(), append([]string{"replay", "--dry-run", "--service", "sams"}, withoutCanary(c.args)...)...)
			if dry.status != c.status || !strings.Contains(dry.stderr, c.says) {
				t.Errorf("dry run: status %d, %s", dry.status, dry.stderr)
			}
			got := h.dlq(t.Context(), append([]string{"replay", "--yes", "--service", "sams"}, c.args...)...)
			if got.status != c.status || !strings.Contains(got.stderr, c.says) {
				t.Errorf("status %d, %s", got.status, got.stderr)
			}
			h.replayed(c.replayed)
		})
	}
}

func withoutCanary(args []string) []string {
	if len(args) > 0 && args[0] == "--canary" {
		return nil
	}
	return args
}

// TestForgedRejectionTimeIsNotNewest: a message that claims a rejection in the future does
// not count as newer than it is.
func TestForgedRejectionTimeIsNotNewest(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	h.put(deadLettered(1, goodData(1), "dlq_services_digest", digestOf(t, newList), "dlq_rejected_at", "2999-01-01T00:00:00Z"))
	h.put(deadLettered(2, goodData(2), "dlq_services_digest", digestOf(t, oldList), "dlq_rejected_at", "2999-01-02T00:00:00Z"))
	if got := h.dlq(t.Context(), "replay", "--yes"); got.status != 0 {
		t.Errorf("%+v", got)
	}
}

// TestReplayStopsWhenEventsComeBack: a replay whose events come back stops.
func TestReplayStopsWhenEventsComeBack(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		back int // how many of the replayed events the worker rejects again
		stop bool
	}{
		"ten come back":        {nil, 10, true},
		"nine come back":       {nil, 9, false},
		"two of two":           {[]string{"--stop-after", "2"}, 2, true},
		"all, and never stops": {[]string{"--stop-after", "0"}, 1000, false},
		"all, slowly":          {[]string{"--rate", "20"}, 1000, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newTestQueue(t)
			const n = 200
			for i := range n {
				h.put(deadLettered(i, goodData(i)))
			}
			got, published := h.replayAndReject(c.back, append([]string{"replay", "--yes", "--output", "json"}, c.args...)...)
			stopped := strings.Contains(got.stderr, "of this replay were rejected again (--stop-after")
			if stopped != c.stop || (got.status == 1) != c.stop {
				t.Errorf("status %d, %s %s", got.status, got.stdout, got.stderr)
			}
			if slow := len(c.args) > 0 && c.args[0] == "--rate"; slow && published >= n || !slow && published != n {
				t.Errorf("%d events were published", published)
			}
		})
	}
}

// TestUnknownReasonIsRefused: a typing error in a reason is refused, with the known ones.
func TestUnknownReasonIsRefused(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	h.put(deadLettered(1, goodData(1)))
	for _, args := range [][]string{{"stats"}, {"list"}, {"export"}, {"replay", "--yes"}, {"replay", "--dry-run"}, {"purge", "--yes", "--no-backup"}} {
		got := h.expect(2, "", append(args, "--reason", "invalid_evnt")...)
		if !strings.Contains(got.stderr, `unknown reason "invalid_evnt"`) || !strings.Contains(got.stderr, "delivery_attempts_exhausted") || got.stdout != "" {
			t.Errorf("%v: %+v", args, got)
		}
	}
	h.left(1)
}

// TestChangeOfNothingFails: a change that selects no message fails; a command that only
// reads does not.
func TestChangeOfNothingFails(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	h.put(deadLettered(1, goodData(1)))
	file := t.TempDir() + "/f"
	for want, commands := range map[int][][]string{
		0: {{"stats"}, {"list"}, {"export"}, {"replay", "--dry-run"}},
		1: {{"replay", "--yes"}, {"purge", "--yes", "--no-backup"}, {"export", "--remove", "--yes", file}, {"replay", "--yes", "--no-check"}},
	} {
		for _, args := range commands {
			got := h.expect(want, "", append(args, "--service", "nobody")...)
			if (want == 1) != strings.Contains(got.stderr, "no message matches service=nobody") {
				t.Errorf("%v: %s", args, got.stderr)
			}
		}
	}
	h.left(1)
}

// TestEachCauseIsPrintedOnce: a cause is printed once, with an example and its number.
func TestEachCauseIsPrintedOnce(t *testing.T) {
	t.Parallel()
	h := newTestQueue(t)
	for i := range 30 {
		h.put(deadLettered(i, typoData(i)))
	}
	h.put(deadLettered(50, goodData(50), "dlq_replays", "3"))
	got := h.expect(1, `{"matched":31,"replayed":0,"failed":30,"left":31,"over_max_replays":1}`+"\n", "replay", "--yes", "--output", "json", "--jq", ".privateMetadata.x | tonumber")
	for want, n := range map[string]int{"tonumber cannot be applied to": 2, "is left: --jq": 1, "30 in all are left: --jq": 1, "m50 is left: it was replayed": 1, "gojq": 0} {
		if strings.Count(got.stderr, want) != n {
			t.Errorf("want %q %d times: %s", want, n, got.stderr)
		}
	}
}
