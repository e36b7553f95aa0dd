package dlqcmd

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// contents describes the queue: everything of its messages but Pub/Sub's own ids.
func (h *testQueue) contents() []string {
	h.t.Helper()
	var all []string
	for _, m := range h.Messages(dlqSub) {
		s := dlq.Read(m, "prod")
		if s.Reason == dlq.ReasonUnknown || s.Reason == dlq.ReasonAttempts || s.OriginalID == s.ID {
			s.OriginalID = "" // it is compared where it is known
		}
		attributes := maps.Clone(s.Added)
		if attributes["dlq_restored"] != "" {
			for _, mark := range []string{"dlq_restored", "dlq_message_id", "dlq_publish_time", "dlq_rejected_at"} {
				delete(attributes, mark)
			}
		}
		added := fmt.Sprint(attributes)
		s.Added, s.ID, s.PublishTime = nil, "", m.GetPublishTime().AsTime().Truncate(1)
		all = append(all, fmt.Sprint(s.Reason, s.Detail, s.RejectedAt, s.FirstRejectedAt, s.Replays, s.EventID, s.OriginalID, s.OriginalPublishTime,
			s.Original.Attributes, s.Original.OrderingKey, len(s.Original.Data), string(s.Original.Data[:min(100, len(s.Original.Data))]), s.Broken, added))
	}
	slices.Sort(all)
	return all
}

func (h *testQueue) sameContents(want []string) {
	h.t.Helper()
	got := h.contents()
	if len(got) != len(want) {
		h.t.Fatalf("%d messages, want %d", len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			h.t.Errorf("got %.2000q,\nwant %.2000q", got[i], want[i])
		}
	}
}

// TestRestoreUndoesPurge: a restore puts every message that a purge has removed back
// unchanged.
func TestRestoreUndoesPurge(t *testing.T) {
	if testing.Short() {
		t.Skip("compresses megabytes")
	}
	t.Parallel()
	h := newTestQueue(t)
	h.reject(hostile())
	h.put(deadLettered(1, "not gzip", "dlq_encoding", "gzip", "dlq_detail", "\x1b[2J"), deadLettered(2, goodData(2), "dlq_replays", "2", "dlq_first_rejected_at", "2026-11-19T10:00:00Z"),
		&pubsubpb.PubsubMessage{Data: []byte("{ nonsense")},
		&pubsubpb.PubsubMessage{Data: []byte(goodData(3)), Attributes: map[string]string{
			"service_id": "sams", "CloudPubSubDeadLetterSourceDeliveryCount": "7", "CloudPubSubDeadLetterSourceTopicPublishTime": "2026-11-19T10:00:00Z"}})
	want := h.contents()
	backup := filepath.Join(t.TempDir(), "backup")
	h.expect(0, "", "purge", "--yes", "--all", "--backup", backup)
	h.left(0)
	h.expect(0, fmt.Sprintf(`{"matched":%d,"restored":%[1]d,"failed":0}`+"\n", len(want)), "restore", backup, "--yes", "--output", "json")
	h.sameContents(want)
	// A second purge and restore: the attributes of a restore are not lost in a backup.
	backup += "2"
	h.expect(0, "", "purge", "--yes", "--all", "--backup", backup)
	h.expect(0, fmt.Sprintf("%d messages restored\n", len(want)), "restore", backup, "--yes")
	h.sameContents(want)
	h.left(len(want))
}

// TestRestoreUndoesReplay: a replay with --backup, and a plan that was applied, can be
// taken back.
func TestRestoreUndoesReplay(t *testing.T) {
	h := newPlanned(t)
	want := h.contents()
	backup := h.path("backup")
	h.expect(0, "", "replay", "--yes", "--fault", typoFault, "--jq", "del(.typo)", "--backup", backup, "--canary", "3", "--canary-wait", "1ms")
	h.expect(2, "", "replay", "--yes", "--fault", typoFault, "--backup", backup)
	h.left(18)
	got := h.expect(0, "", "restore", backup, "--yes")
	if !strings.Contains(got.stderr, `"action":"dlq restore"`) || !strings.Contains(got.stderr, `"restored":20`) {
		t.Error(got.stderr)
	}
	h.sameContents(want)

	h.make()
	if got := h.apply(t.Context()); got.status != 0 {
		t.Fatalf("%+v", got)
	}
	h.left(3)
	h.expect(0, `{"matched":35,"restored":35,"failed":0}`+"\n", "restore", h.path("plan.json.backup"), "--yes", "--output", "json")
	h.sameContents(want)
	h.left(38)
}

// TestBackupHasOnlyRemovedMessages: a message that stays in the queue is not in the backup.
func TestBackupHasOnlyRemovedMessages(t *testing.T) {
	h := newPlanned(t)
	backup := h.path("backup")
	h.expect(1, `{"matched":38,"replayed":15,"failed":23,"left":23}`+"\n", "replay", "--yes", "--output", "json", "--backup", backup)
	text, err := os.ReadFile(backup)
	if err != nil || bytes.Count(text, []byte("\n")) != 15 {
		t.Errorf("%v %s", err, text)
	}
	if info, err := os.Stat(backup); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

func TestRestoreRefusesBrokenFiles(t *testing.T) {
	h := newPlanned(t)
	good := h.path("good")
	h.expect(0, "", "export", "--limit", "2", good)
	lines, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		if err := os.WriteFile(h.path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return h.path(name)
	}
	for name, c := range map[string]struct {
		file   string
		status int
		says   string
	}{
		"no file":            {h.path("none"), 2, "no such file"},
		"a folder":           {h.dir, 1, "line 1"},
		"an empty file":      {write("empty", ""), 1, "has no message"},
		"lines for publish":  {write("publish", `{"attributes":{"service_id":"sams"},"data":{}}`), 1, "line 1: it is no line of an export or a backup"},
		"one bad line":       {write("bad", string(lines)+"nonsense\n"), 1, "line 3: not valid JSON"},
		"a line that is cut": {write("cut", string(lines[:len(lines)-5])), 1, "line 2: the JSON object does not end"},
		"many bad lines":     {write("many", strings.Repeat("x\n", 100)), 1, "and 80 more lines"},
		"an escape":          {write("escape", "\x1b[2J\n"), 1, "line 1: not valid JSON at byte 1"},
	} {
		if got := h.expect(c.status, "", "restore", c.file, "--yes"); !strings.Contains(got.stderr, c.says) || strings.Contains(got.stderr, "\x1b") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, args := range [][]string{{"restore"}, {"restore", good}, {"restore", good, "x", "--yes"}, {"restore", good, "--yes", "--from-line", "0"}} {
		h.expect(2, "", args...)
	}
	h.left(38)
	// A message that is there twice is restored once.
	twice := write("twice", string(lines)+string(lines))
	h.expect(0, `{"matched":2,"restored":2,"failed":0}`+"\n", "restore", twice, "--yes", "--output", "json")
	h.expect(0, `{"matched":1,"restored":1,"failed":0}`+"\n", "restore", good, "--yes", "--output", "json", "--from-line", "2")
	h.left(41)
}

// TestInterruptedRestoreGoesOn: wherever a restore ends, it says from which line the next
// one goes on, and then no message is missing.
func TestInterruptedRestoreGoesOn(t *testing.T) {
	for _, end := range []string{"interrupted", "refused"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			h := newTestQueue(t)
			var messages []*pubsubpb.PubsubMessage
			for i := range 2500 {
				messages = append(messages, deadLettered(i, goodData(i)))
			}
			h.put(messages...)
			want := h.contents()
			backup := filepath.Join(t.TempDir(), "backup")
			h.expect(0, "", "purge", "--yes", "--all", "--backup", backup)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var requests atomic.Int32
			h.SetFault(func(method string, _ any) error {
				if method != "Publish" || requests.Add(1) < 2 {
					return nil
				}
				if end == "interrupted" {
					cancel()
					return nil
				}
				return status.Error(codes.InvalidArgument, "no")
			})
			got := h.dlq(ctx, "restore", backup, "--yes")
			h.SetFault(nil)
			next := "--from-line 1001` goes on"
			if end == "interrupted" {
				next = "--from-line 2001` goes on" // the request in flight is still confirmed
			}
			if got.status != 1 || !strings.Contains(got.stderr, next) {
				t.Fatalf("no %q in %+v", next, got)
			}
			line, _, _ := strings.Cut(got.stderr[strings.Index(got.stderr, "--from-line ")+len("--from-line "):], "`")
			h.expect(0, "", "restore", backup, "--yes", "--from-line", line)
			h.sameContents(want)
		})
	}
}
