package dlqcmd

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// bomb is data that gzip inflates to gigabytes.
func bomb(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	zeros := make([]byte, 1<<20)
	for range 2000 {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// harmless fails the test if a control character reaches the terminal.
func (h *testQueue) harmless(what string, got dlqResult) {
	h.t.Helper()
	for _, r := range got.stdout + got.stderr {
		if terminal.Unsafe(r) && r != '\n' && r != '\t' {
			h.t.Errorf("%s: %q reaches the terminal: %.1000q", what, r, got.stdout+got.stderr)
			return
		}
	}
	if n := len(got.stdout) + len(got.stderr); n > 300_000 {
		h.t.Errorf("%s: %d bytes", what, n)
	}
}

var faultIDPattern = regexp.MustCompile(`"fault":"(F-[0-9a-f]{6})"`)

// TestPlanOfHostileMessages plans to replay, and then to purge, messages that any publisher
// of the dead-letter topic may have made. The output is bounded and harmless, and a restore
// puts the messages back unchanged.
func TestPlanOfHostileMessages(t *testing.T) {
	if testing.Short() {
		t.Skip("compresses megabytes")
	}
	t.Parallel()
	h := &planned{testQueue: newTestQueue(t), dir: t.TempDir()}
	h.reject(hostile())
	large := bomb(t)
	h.put(
		deadLettered(1, large, "dlq_encoding", "gzip"), deadLettered(2, large, "dlq_encoding", "envelope+gzip"),
		deadLettered(3, typoData(3), "dlq_detail", "\x1b[2J\u202e: typo", "service_id", "\x1b]0;x\a", "dlq_message_id", "$(reboot)", "dlq_event_id", "`reboot`"),
		deadLettered(4, goodData(4), "dlq_replays", "-7", "dlq_rejected_at", "9999-12-31T23:59:59Z", "dlq_first_rejected_at", "soon"),
		deadLettered(5, `{"feature":"`+strings.Repeat("x", 1<<20)+`"}`, "dlq_detail", strings.Repeat("typo ", 200)),
	)
	want := h.contents()
	n := len(want)
	stats := h.expect(0, "", "stats", "--output", "json")
	h.harmless("stats", stats)
	h.harmless("stats", h.expect(0, "", "stats"))
	ids := map[string]bool{}
	for _, match := range faultIDPattern.FindAllStringSubmatch(stats.stdout, -1) {
		ids[match[1]] = true
	}
	all := func(action string) string {
		var b strings.Builder
		for id := range ids {
			fmt.Fprintf(&b, "%s: %s\n", id, action)
		}
		return h.fix(b.String())
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for action, args := range map[string][]string{"{jq: del(.typo)}": nil, "{jq: '{feature: \"a.b\", action: \"c\", privateMetadata: .}'}": {"--no-check"}, "replay": {"--reveal"}} {
		fixes := all(action)
		h.harmless("plan "+action, h.dlq(t.Context(), append([]string{"plan", "--fix", fixes, "-o", h.path(fmt.Sprint("plan", len(args), len(action)))}, args...)...))
	}
	h.left(n)
	path := h.path("purge.json")
	h.harmless("plan purge", h.expect(0, "", "plan", "--fix", all("purge"), "-o", path))
	h.harmless("apply", h.expect(0, "", "apply", path, "--yes"))
	h.harmless("status", h.expect(0, "", "status", path))
	h.left(0)
	h.harmless("restore", h.expect(0, "", "restore", path+".backup", "--yes"))
	h.sameContents(want)
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 1<<30 {
		t.Errorf("the heap has grown by %d MB", grown>>20)
	}
}

// TestForgedReceiptsAreNotCounted: forged receipts are counted for no message, or shown
// harmlessly.
func TestForgedReceiptsAreNotCounted(t *testing.T) {
	h := newPlanned(t)
	path := h.make()
	if got := h.apply(t.Context()); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	m := h.replayed(30)[0]
	id := m.GetAttributes()["replay_id"]
	origin := m.GetAttributes()["origin_message_id"]
	for _, a := range []map[string]string{
		{"replay_id": id}, {"replay_id": id, "origin_message_id": "\x1b[2J", "verdict": "rejected", "reason": "\x1b[31mreason", "at": "soon"},
		{"replay_id": id, "origin_message_id": strings.Repeat("x", 300), "verdict": "recorded"},
		{"replay_id": id, "origin_message_id": "somebody's", "verdict": "recorded", "event_id": "\u202e"},
		{"replay_id": id, "origin_message_id": origin, "verdict": "rejected", "reason": "\x1b[2J"},
		{"replay_id": "\x1b", "origin_message_id": origin, "verdict": "recorded"},
		{"nothing": "x"},
	} {
		if _, err := h.Publish(receiptsTopic, &pubsubpb.PubsubMessage{Attributes: a, Data: bytes.Repeat([]byte("x"), 1<<20)}); err != nil {
			t.Fatal(err)
		}
	}
	got := h.with(withReceipts, nil, "status", path)
	h.harmless("status", got)
	if got.status != 0 || !strings.Contains(got.stdout, "In all: 30 published, 0 recorded, 1 rejected, 29 waiting") {
		t.Errorf("%+v", got)
	}
}

// TestForgedPlanFilesAreRefused: a forged plan, journal or file of fixes is refused.
func TestForgedPlanFilesAreRefused(t *testing.T) {
	h := newPlanned(t)
	path, p := h.makeAndRead()
	begin := fmt.Sprintf(`{"kind":"begun","plan":%q,"checksum":%q}`+"\n", p.ID, p.Checksum)
	for name, journal := range map[string]string{
		"of another plan":   strings.Replace(begin, p.ID, "20260101T000000Z-aaaaaa", 1),
		"without a plan":    "{}\n",
		"an escape":         "\x1b[2J\n",
		"a long line":       begin + strings.Repeat(" ", 17<<20) + "\n",
		"another message":   begin + `{"kind":"published","ids":["\u001b[2J"]}` + "\n",
		"an unknown record": begin + `{"kind":"\u001b[2J"}` + "\n",
		"deep":              begin + strings.Repeat("[", 20_000) + "\n",
	} {
		if err := os.WriteFile(plan.JournalOf(path), []byte(journal), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"apply", path, "--yes"}, {"status", path}} {
			got := h.expect(1, "", args...)
			h.harmless(name, got)
			if !strings.Contains(got.stderr, "of the journal") {
				t.Errorf("%s: %s", name, got.stderr)
			}
		}
	}
	h.left(38)
	h.replayed(0)
	bombs := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for i := 'b'; i < 'k'; i++ {
		bombs += fmt.Sprintf("%c: &%[1]c [*%[2]c, *%[2]c, *%[2]c, *%[2]c, *%[2]c, *%[2]c, *%[2]c, *%[2]c, *%[2]c]\n", i, i-1)
	}
	for name, fixes := range map[string]string{"aliases": bombs, "an escape": "\x1b[2J: purge"} {
		h.harmless(name, h.expect(2, "", "plan", "--fix", h.fix(fixes), "-o", h.path("other.json")))
	}
}

// TestInterruptedPlanLeavesNoFile: a plan that ends early leaves no file, and the queue as
// it was.
func TestInterruptedPlanLeavesNoFile(t *testing.T) {
	for _, method := range []string{"Pull", "ModifyAckDeadline"} {
		t.Run(method, func(t *testing.T) {
			h := newPlanned(t)
			fixes := h.fix(typoFault + ": {jq: del(.typo)}\n")
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			h.SetFault(func(m string, _ any) error {
				if m == method {
					cancel()
				}
				return nil
			})
			if got := h.dlq(ctx, "plan", "--fix", fixes, "-o", h.path("plan.json")); got.status != 1 || !strings.Contains(got.stderr, "interrupted") {
				t.Errorf("%+v", got)
			}
			h.left(38)
			if _, err := os.Stat(h.path("plan.json")); !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		})
	}
}
