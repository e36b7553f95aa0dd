package receipts

import (
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// golden is a receipt as published, on which readers of other versions rely.
var golden = map[string]string{
	"replay_id": "20261120T100000Z-abc234", "origin_message_id": "13411870000000000", "event_id": "019aa000-0000-7000-8000-000000000001",
	"verdict": "rejected", "reason": "invalid_event", "at": "2026-11-20T10:00:01.5Z", "services_digest": "a87bd7cb9d9a",
}

var goldenReceipt = Receipt{
	ReplayID: "20261120T100000Z-abc234", OriginMessageID: "13411870000000000", EventID: "019aa000-0000-7000-8000-000000000001",
	Verdict: Rejected, Reason: "invalid_event", At: time.Date(2026, 11, 20, 10, 0, 1, 5e8, time.UTC), ServicesDigest: "a87bd7cb9d9a",
}

func TestReceiptFormatNeverChanges(t *testing.T) {
	if diff := cmp.Diff(golden, goldenReceipt.Attributes()); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
	got, ok := Read(golden)
	if diff := cmp.Diff(goldenReceipt, got); diff != "" || !ok {
		t.Errorf("read, ok %v (-want +got):\n%s", ok, diff)
	}
	short := Receipt{ReplayID: "R", OriginMessageID: "7", Verdict: Recorded, At: goldenReceipt.At}
	if want := (map[string]string{"replay_id": "R", "origin_message_id": "7", "verdict": "recorded", "at": "2026-11-20T10:00:01.5Z"}); !maps.Equal(short.Attributes(), want) {
		t.Errorf("without optional parts: %v", short.Attributes())
	}
}

// TestReadTakesReceiptsOfOtherVersions also has messages that are no receipts.
func TestReadTakesReceiptsOfOtherVersions(t *testing.T) {
	with := func(changes ...string) map[string]string {
		a := maps.Clone(golden)
		for i := 0; i < len(changes); i += 2 {
			if a[changes[i]] = changes[i+1]; changes[i+1] == "" {
				delete(a, changes[i])
			}
		}
		return a
	}
	for name, c := range map[string]struct {
		attributes map[string]string
		change     func(*Receipt)
		none       bool
	}{
		"a new attribute":         {attributes: with("stream", "3"), change: func(*Receipt) {}},
		"a new verdict":           {attributes: with("verdict", "postponed"), change: func(r *Receipt) { r.Verdict = Unknown }},
		"no verdict":              {attributes: with("verdict", ""), change: func(r *Receipt) { r.Verdict = Unknown }},
		"a time that is none":     {attributes: with("at", "yesterday"), change: func(r *Receipt) { r.At = time.Time{} }},
		"a reason with an escape": {attributes: with("reason", "\x1b[31m"), change: func(r *Receipt) { r.Reason = fault.Hidden }},
		"a forged event id":       {attributes: with("event_id", "alice@example.com"), change: func(r *Receipt) { r.EventID = fault.Hidden }},
		"no replay id":            {attributes: with("replay_id", ""), none: true},
		"no origin":               {attributes: with("origin_message_id", ""), none: true},
		"nothing":                 {none: true},
	} {
		got, ok := Read(c.attributes)
		if ok == c.none {
			t.Errorf("%s: ok %v", name, ok)
			continue
		}
		if c.none {
			continue
		}
		want := goldenReceipt
		c.change(&want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestOnlyReplayedMessagesGetReceipts(t *testing.T) {
	long := string(make([]byte, maxID+1))
	for name, c := range map[string]struct {
		count, replay, origin string
		want                  bool
	}{
		"replayed":              {"1", "R", "7", true},
		"replayed often":        {"12", "R", "7", true},
		"no replay":             {"", "", "", false},
		"an older dlq's replay": {"1", "", "7", false},
		"no count":              {"", "R", "7", false},
		"an invalid count":      {"01", "R", "7", false},
		"no origin":             {"1", "R", "", false},
		"a long id":             {"1", long, "7", false},
		"a long origin":         {"1", "R", long, false},
		"invalid UTF-8":         {"1", "\xff", "7", false},
	} {
		got, ok := For(map[string]string{"replay_count": c.count, "replay_id": c.replay, "origin_message_id": c.origin, "service_id": "sams"})
		want := Receipt{}
		if c.want {
			want = Receipt{ReplayID: c.replay, OriginMessageID: c.origin}
		}
		if ok != c.want || got != want {
			t.Errorf("%s: %+v, %v", name, got, ok)
		}
	}
}
