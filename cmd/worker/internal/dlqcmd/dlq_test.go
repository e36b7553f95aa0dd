package dlqcmd

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
)

func TestReadingCommandsShowMessages(t *testing.T) {
	h := newTestQueue(t)
	h.expect(0, "no dead-lettered messages\n", "list")
	h.expect(0, "[]\n", "list", "--output", "json")
	h.expect(0, `{"count":0,"replayed_before":0,"oldest":null,"newest":null,"groups":[],"faults":[],"count_at_least":true}`+"\n", "stats", "--output", "json")
	ids := h.put(
		deadLettered(1, typoData(1)), deadLettered(2, typoData(2), "dlq_replays", "1"),
		deadLettered(3, "\xff\x1b[2J", "dlq_reason", "malformed_payload", "dlq_detail", "evil \x1b[2J"),
		&pubsubpb.PubsubMessage{Data: []byte("{ nonsense")},
		deadLettered(5, "not gzip", "dlq_encoding", "gzip"),
	)
	var stats struct {
		Count  int
		Groups []*dlq.GroupCount
	}
	got := h.expect(0, "", "stats", "--output", "json")
	if err := json.Unmarshal([]byte(got.stdout), &stats); err != nil || stats.Count != 5 || len(stats.Groups) != 4 {
		t.Fatalf("%v %s", err, got.stdout)
	}
	if g := stats.Groups[0]; g.Count != 2 || g.ReplayedBefore != 1 || g.Owner != "team-sams" || g.Runbook != "https://r" || g.Feature != "sams.user" {
		t.Errorf("%+v", g)
	}
	if got := h.expect(0, "", "stats"); !strings.Contains(got.stdout, "5 messages") {
		t.Error(got.stdout)
	}
	if got := h.expect(0, "", "list"); strings.Count(got.stdout, "\n") != 6 || strings.Contains(got.stdout, "\x1b") {
		t.Error(got.stdout)
	}
	for format, least := range map[string]int{"json": 6, "ndjson": 5} {
		if got := h.expect(0, "", "list", "--output", format); strings.Count(got.stdout, "\n") != least {
			t.Errorf("%s: %s", format, got.stdout)
		}
	}
	for _, id := range []string{"m1", ids[0]} {
		got := h.expect(0, "", "show", id)
		for _, want := range []string{`"typo": "[hidden]",   <── here`, "[hidden]", "--jq", "team-sams", "service_id = sams"} {
			if !strings.Contains(got.stdout, want) {
				t.Errorf("want %q in %s", want, got.stdout)
			}
		}
	}
	if got := h.expect(0, "", "show", "--reveal", "m1"); !strings.Contains(got.stdout, secretValue) {
		t.Error(got.stdout)
	}
	for _, id := range []string{"m3", ids[3], "m5"} {
		h.expect(0, "", "show", id)
		h.expect(0, "", "show", "--output", "json", id)
	}
	h.expect(1, "", "show", "nobody")
	h.left(5)
}

func TestReplayPublishesAndRemoves(t *testing.T) {
	h := newTestQueue(t)
	for i := range 1100 {
		h.put(deadLettered(i, goodData(i)))
	}
	h.put(deadLettered(2000, typoData(1)), deadLettered(2001, "{}", "dlq_replays", "3"), deadLettered(2002, goodData(1), "service_id", "other"))
	h.expect(0, `{"matched":1103,"replayed":0,"failed":2,"left":1103,"over_max_replays":1}`+"\n", "replay", "--dry-run", "--output", "json")
	h.expect(2, "", "replay")
	h.left(1103)
	got := h.expect(1, `{"matched":1103,"replayed":1100,"failed":2,"left":3,"over_max_replays":1}`+"\n", "replay", "--yes", "--output", "json")
	for _, want := range []string{`"who":"unknown"`, `"replayed":1100`, `"audit":true`, "typo: unknown field", "replayed 3 times before"} {
		if !strings.Contains(got.stderr, want) {
			t.Errorf("want %s in %s", want, got.stderr)
		}
	}
	h.left(3)
	want := fmt.Sprint(map[string]string{
		"service_id": "sams", "replay_count": "1", "origin_message_id": "m7", "origin_publish_time": "2026-11-20T09:00:00.123456789Z", "origin_rejected_at": "2026-11-20T10:00:00Z",
	})
	if !slices.ContainsFunc(h.replayed(1100), func(m *pubsubpb.PubsubMessage) bool {
		a := maps.Clone(m.GetAttributes())
		id := a["replay_id"]
		delete(a, "replay_id")
		return len(id) > 20 && fmt.Sprint(a) == want && string(m.GetData()) == goodData(7)
	}) {
		t.Errorf("none is %s", want)
	}
	// Fixed events are replayed, and large numbers keep all their digits.
	h.expect(1, `{"matched":1,"replayed":0,"failed":1,"left":3}`+"\n", "replay", "--yes", "--output", "json", "--message-id", "m2000", "--jq", `error(.privateMetadata.x)`)
	h.expect(0, `{"matched":1,"replayed":1,"failed":0,"left":2}`+"\n", "replay", "--yes", "--output", "json", "--message-id", "m2000", "--jq", "del(.typo)")
	all := h.replayed(1101)
	if data := string(all[1100].GetData()); !strings.Contains(data, "9007199254740993") || strings.Contains(data, "typo") {
		t.Error(data)
	}
	h.expect(0, `{"matched":2,"replayed":2,"failed":0,"left":0}`+"\n", "replay", "--yes", "--output", "json", "--no-check", "--max-replays", "9")
	h.left(0)
}

func TestReplayLimitAndRate(t *testing.T) {
	h := newTestQueue(t)
	for i := range 20 {
		h.put(deadLettered(i, goodData(i), "dlq_ordering_key", fmt.Sprint("k", i%3)))
	}
	began := time.Now()
	h.expect(0, `{"matched":11,"replayed":11,"failed":0,"left":9}`+"\n", "replay", "--yes", "--output", "json", "--limit", "11", "--rate", "100")
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	for _, m := range h.replayed(11) {
		if m.GetOrderingKey() == "" {
			t.Error("an ordering key is lost")
		}
	}
	h.left(9)
}

// One that has no room for the attributes of a replay, and one whose data is no
// JSON for --jq.
func TestReplayLeavesFailingMessages(t *testing.T) {
	h := newTestQueue(t)
	attributes := map[string]string{"service_id": "sams"}
	for i := range 99 {
		attributes[fmt.Sprint("a", i)] = "x"
	}
	text, err := ndjson.Append(nil, ndjson.Message{Attributes: attributes, Data: []byte(goodData(1))})
	if err != nil {
		t.Fatal(err)
	}
	h.put(deadLettered(1, gzipped(t, text), "dlq_encoding", "envelope+gzip"), deadLettered(2, "\xff"))
	for _, expression := range []string{".", "empty", ".,.", "1"} {
		h.expect(1, `{"matched":2,"replayed":0,"failed":2,"left":2}`+"\n", "replay", "--yes", "--output", "json", "--no-check", "--jq", expression)
	}
	h.expect(2, "", "replay", "--yes", "--jq", "{")
	h.left(2)
}

func gzipped(t *testing.T, data []byte) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestReplayWithoutTopic(t *testing.T) {
	h := newTestQueue(t)
	h.put(deadLettered(1, goodData(1)))
	h.SetFault(func(method string, _ any) error {
		if method == "Publish" {
			return status.Error(codes.NotFound, "no topic")
		}
		return nil
	})
	if got := h.expect(1, "", "replay", "--yes"); !strings.Contains(got.stderr, "PUBSUB_TOPIC") {
		t.Error(got.stderr)
	}
	h.left(1)
	h.SetFault(func(method string, _ any) error {
		if method == "Pull" {
			return status.Error(codes.PermissionDenied, "no")
		}
		return nil
	})
	if got := h.expect(1, "", "stats"); !strings.Contains(got.stderr, "DLQ_SUBSCRIPTION") {
		t.Error(got.stderr)
	}
}

func TestExportWritesOriginals(t *testing.T) {
	h := newTestQueue(t)
	for i := range 5 {
		h.put(deadLettered(i, goodData(i)))
	}
	h.put(deadLettered(5, "\xff"), deadLettered(6, "x", "dlq_encoding", "what"))
	file := filepath.Join(t.TempDir(), "lines")
	h.expect(1, `{"matched":7,"exported":6,"failed":1,"left":7}`+"\n", "export", "--output", "json", file)
	h.expect(2, "", "export", file)
	h.expect(2, "", "export", "--remove")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if got := h.dlq(t.Context(), "export"); len(got.stdout) != len(content) || !strings.Contains(got.stderr, "7 matched") {
		t.Errorf("%+v", got)
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	if len(lines) != 6 {
		t.Fatal(lines)
	}
	for _, text := range lines {
		if m, err := ndjson.Parse([]byte(text)); err != nil || len(m.Attributes) != 1 {
			t.Errorf("%v %s", err, text)
		}
	}
	h.left(7)
	h.expect(0, `{"matched":6,"exported":6,"failed":0,"left":1}`+"\n", "export", "--remove", "--yes", "--output", "json",
		"--reason", "invalid_event", "--message-id", "m0", "--message-id", "m1", "--message-id", "m2", "--message-id", "m3",
		"--message-id", "m4", "--message-id", "m5", filepath.Join(t.TempDir(), "lines"))
	h.left(1)
}

func TestPurgeNeedsFilterAndBackup(t *testing.T) {
	h := newTestQueue(t)
	for i := range 5 {
		h.put(deadLettered(i, goodData(i)))
	}
	h.put(deadLettered(6, "x", "dlq_encoding", "what", "dlq_reason", "oversized"))
	file := filepath.Join(t.TempDir(), "backup")
	for _, args := range [][]string{
		{"--yes"}, {"--yes", "--all"}, {"--all", "--no-backup"}, {"--yes", "--all", "--reason", "x", "--no-backup"},
		{"--yes", "--all", "--no-backup", "--backup", file}, {"--yes", "--no-backup"},
	} {
		h.expect(2, "", append([]string{"purge"}, args...)...)
	}
	h.left(6)
	h.expect(0, `{"matched":2,"purged":2,"failed":0,"left":4}`+"\n", "purge", "--yes", "--output", "json",
		"--backup", file, "--message-id", "m1", "--message-id", "m6")
	content, err := os.ReadFile(file)
	if err != nil || strings.Count(string(content), "\n") != 2 || !strings.Contains(string(content), `"dlq_encoding":"what"`) {
		t.Errorf("%v %s", err, content)
	}
	h.expect(2, "", "purge", "--yes", "--all", "--backup", file)
	h.left(4)
	h.expect(2, "", "purge", "--yes", "--all", "--backup", "/no/such/folder/x")
	h.left(4)
	h.expect(0, `{"matched":4,"purged":4,"failed":0,"left":0}`+"\n", "purge", "--yes", "--output", "json", "--all", "--no-backup")
	h.left(0)
}

// TestInterruptedCommandsLoseNothing ends each step of each command, and finds everything
// in the queue or on the topic.
func TestInterruptedCommandsLoseNothing(t *testing.T) {
	for _, args := range [][]string{
		{"stats"}, {"list"}, {"show", "x"}, {"export"}, {"replay", "--yes"},
		{"purge", "--all", "--yes", "--backup"}, {"export", "--remove", "--yes"},
	} {
		for _, method := range []string{"Pull", "ModifyAckDeadline", "Publish", "Acknowledge"} {
			for _, after := range []int{1, 2} {
				t.Run(fmt.Sprint(args, method, after), func(t *testing.T) {
					t.Parallel()
					h := newTestQueue(t)
					for i := range 1500 {
						h.put(deadLettered(i, goodData(i)))
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					calls := make(chan struct{}, 100)
					h.SetFault(func(m string, _ any) error {
						if m == method {
							if calls <- struct{}{}; len(calls) == after {
								cancel()
							}
						}
						return nil
					})
					args := slices.Clone(args)
					if args[len(args)-1] == "--backup" {
						args = append(args, filepath.Join(t.TempDir(), "backup"))
					}
					got := h.dlq(ctx, args...)
					switch {
					case ctx.Err() == nil: // the command never reached that step
					case got.status != 1:
						t.Errorf("status %d: %s", got.status, got.stderr)
					}
					removed := h.Stats(dlqSub).Acked
					h.left(1500 - removed)
					if args[0] == "replay" {
						if got := len(h.Messages(dlqLedger)); got != removed {
							t.Errorf("%d on the topic, and %d removed", got, removed)
						}
					}
				})
			}
		}
	}
}

// TestTwoReadersLoseNothing: two readers at once lose no message.
func TestTwoReadersLoseNothing(t *testing.T) {
	h := newTestQueue(t)
	for i := range 3000 {
		h.put(deadLettered(i, goodData(i)))
	}
	done := make(chan dlqResult)
	for range 2 {
		go func() { done <- h.dlq(t.Context(), "replay", "--yes", "--limit", "1000", "--no-check") }()
	}
	for range 2 {
		if got := <-done; got.status != 0 {
			t.Errorf("%+v", got)
		}
	}
	removed := h.Stats(dlqSub).Acked
	h.left(3000 - removed)
	h.replayed(removed)
}

func TestCommandsRefuseMistakes(t *testing.T) {
	h := newTestQueue(t)
	for _, args := range [][]string{
		{"bogus"}, {"stats", "x"}, {"stats", "--output", "ndjson"}, {"list", "--since", "soon"}, {"list", "--limit", "-1"},
		{"show"}, {"replay", "--yes", "--rate", "-1"}, {"replay", "--yes", "x"},
	} {
		h.expect(2, "", args...)
	}
	for _, args := range [][]string{{}, {"stats", "--help"}, {"list", "--help"}, {"show", "--help"}, {"export", "--help"}, {"replay", "--help"}, {"purge", "--help"}} {
		if got := h.dlq(t.Context(), args...); got.status != 0 || !strings.Contains(got.stdout, "Example") {
			t.Errorf("%v: %+v", args, got)
		}
	}
}
