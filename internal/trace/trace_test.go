package trace

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/receipts"
)

var (
	now       = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	early     = now.Add(-2 * time.Hour)
	late      = now.Add(-time.Hour)
	rejection = Rejection{Fault: "F-17ca08", Reason: "invalid_event", Service: "sams", RejectedAt: late, DeadLetterID: "d1"}
	oldest    = 40 * time.Second
	replay1   = Action{At: early, By: "alice@example.com", What: "dlq replay", ReplayID: "R1"}
	purge     = Action{At: late, By: "bob@example.com", What: "dlq purge", Filter: "event-id=E"}
)

func receipt(replay string, v receipts.Verdict, reason string) receipts.Receipt {
	return receipts.Receipt{ReplayID: replay, OriginMessageID: "m1", EventID: "E", Verdict: v, Reason: reason, At: late}
}

func TestConcludeNamesStateAndUnprovenFacts(t *testing.T) {
	back := rejection
	back.ReplayID, back.Replays = "R1", 1
	for name, c := range map[string]struct {
		facts Facts
		state State
		// summary is the beginning of the summary. A replay is "id verdict by".
		summary  string
		replays  []string
		others   int
		unproven []string // their beginnings
	}{
		"nothing known": {
			Facts{OldestDoubt: "nobody was asked"}, NotRejected, "It was not rejected, as far as is known here: it was recorded, still waits, or was never published.", nil, 0,
			[]string{"Whether the gateway has recorded it", "Whether it still waits: nobody was asked", "Whether it was published at all"},
		},
		"nothing known, and the queue is not read to its end": {
			Facts{QueueDoubt: "there is more", ReceiptsDoubt: "none were read", ActionsDoubt: "others"}, NotRejected, "It was not rejected", nil, 0,
			[]string{"Whether the queue has it: there is more.", "What became of replays: none were read.", "Who has replayed or removed it: others.", "Whether the gateway", "Whether it still waits", "Whether it was published"},
		},
		"the oldest is younger": {
			Facts{Oldest: &oldest, Created: early}, NotRejected,
			"It was not rejected, as far as is known here: it was recorded, still waits, or was never published. The oldest event has waited for 40s. This one is older, by its id of 2026-11-27T10:00:00Z, so that it no longer waits.", nil, 0,
			[]string{"Whether the gateway", "Whether it was published"},
		},
		"it may wait": {
			Facts{Oldest: &oldest, Created: now.Add(-2 * time.Minute)}, NotRejected, "It was not rejected, as far as is known here: it was recorded, still waits, or was never published. The oldest event has waited for 40s.", nil, 0,
			[]string{"Whether the gateway", "Whether it was published"},
		},
		"in the queue":              {Facts{Rejections: []Rejection{rejection}, QueueDoubt: "there is more"}, InQueue, "It is in the dead-letter queue: invalid_event of sams, fault F-17ca08.", nil, 0, nil},
		"in the queue again":        {Facts{Rejections: []Rejection{back}, Actions: []Action{replay1}}, InQueue, "It is in the dead-letter queue", []string{"R1 rejected alice@example.com"}, 0, nil},
		"back, with receipt":        {Facts{Rejections: []Rejection{back}, Receipts: []receipts.Receipt{receipt("R1", receipts.Rejected, "invalid_event")}}, InQueue, "It is in the dead-letter queue", []string{"R1 rejected"}, 0, nil},
		"recorded":                  {Facts{Receipts: []receipts.Receipt{receipt("R1", receipts.Recorded, "")}, Actions: []Action{replay1}, ReceiptsDoubt: "best effort"}, Recorded, "The gateway recorded its replay R1 at 2026-11-27T11:00:00Z.", []string{"R1 recorded alice@example.com"}, 0, nil},
		"recorded before":           {Facts{Receipts: []receipts.Receipt{receipt("R1", receipts.Duplicate, "")}}, Recorded, "The gateway had it already when the replay R1 came", []string{"R1 duplicate"}, 0, nil},
		"two receipts":              {Facts{Receipts: []receipts.Receipt{receipt("R1", receipts.Duplicate, ""), receipt("R1", receipts.Recorded, ""), receipt("R1", receipts.Rejected, "oversized")}}, Recorded, "The gateway recorded its replay R1", []string{"R1 recorded"}, 0, nil},
		"rejected, then recorded":   {Facts{Receipts: []receipts.Receipt{receipt("R2", receipts.Recorded, ""), receipt("R1", receipts.Rejected, "invalid_event")}}, Recorded, "The gateway recorded its replay R2", []string{"R1 rejected", "R2 recorded"}, 0, nil},
		"rejected again":            {Facts{Receipts: []receipts.Receipt{receipt("R1", receipts.Rejected, "invalid_event")}, QueueDoubt: "there is more"}, RejectedAgain, "Its replay R1 was rejected (invalid_event) at 2026-11-27T11:00:00Z, and it is not in the queue now.", []string{"R1 rejected"}, 0, []string{"Whether the queue has it"}},
		"a verdict of a later kind": {Facts{Receipts: []receipts.Receipt{receipt("R1", receipts.Unknown, "")}}, Replayed, "It was replayed (R1), and the verdict is not known.", []string{"R1 unknown"}, 0, nil},
		"no receipt":                {Facts{Actions: []Action{replay1}, ReceiptsDoubt: "none were read"}, Replayed, "It was replayed (R1), and the verdict is not known.", []string{"R1 unknown alice@example.com"}, 0, []string{"What became of replays: none were read."}},
		"purged":                    {Facts{Actions: []Action{purge}}, Removed, "It is not in the queue; dlq purge by bob@example.com selected it at 2026-11-27T11:00:00Z.", nil, 1, nil},
	} {
		c.facts.Now = now
		a := Conclude(c.facts)
		if a.State != c.state || !strings.HasPrefix(a.Summary, c.summary) || len(a.Others) != c.others {
			t.Errorf("%s: %s, %q, %d others; want %s, %q, %d", name, a.State, a.Summary, len(a.Others), c.state, c.summary, c.others)
		}
		var got []string
		for _, r := range a.Replays {
			text := r.ID + " " + string(r.Verdict)
			if r.Action != nil {
				text += " " + r.Action.By
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(c.replays, got); diff != "" {
			t.Errorf("%s: replays (-want +got):\n%s", name, diff)
		}
		same := len(a.Unproven) == len(c.unproven)
		for i := 0; same && i < len(c.unproven); i++ {
			same = strings.HasPrefix(a.Unproven[i], c.unproven[i])
		}
		if !same {
			t.Errorf("%s: unproven %q, want %q", name, a.Unproven, c.unproven)
		}
	}
}

func TestCreatedAtReadsUUIDv7(t *testing.T) {
	for id, want := range map[string]string{
		"019aa000-0000-7000-8000-000000000001": "2025-11-20T06:42:25.92Z",
		"019AA000-0000-7000-8000-000000000001": "2025-11-20T06:42:25.92Z",
		"019aa000-0000-4000-8000-000000000001": "",
		"019aa00z-0000-7000-8000-000000000001": "",
		"-19aa000-0000-7000-8000-000000000001": "",
		"13411870000000000":                    "",
		"":                                     "",
	} {
		got := ""
		if at := CreatedAt(id); !at.IsZero() {
			got = at.Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", id, got, want)
		}
	}
}
