package trace

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// records are audit records as the commands write them, and other lines that may be in the
// file.
const records = `{"time":"2026-11-27T10:00:00Z","audit":true,"action":"dlq replay","who":"alice@example.com","filter":"reason=invalid_event","replay_id":"R1","message":"Changing the dead-letter queue"}
{"time":"2026-11-27T10:00:05Z","audit":true,"action":"dlq replay","who":"alice@example.com","filter":"reason=invalid_event","replay_id":"R1","ids_count":2,"ids":["d1","d2"],"message":"Changed the dead-letter queue"}
not JSON
{"time":"2026-11-27T09:00:00Z","audit":true,"action":"dlq apply","who":"bob@example.com","filter":"all","plan":"R0","plan_file":"/home/bob/plan.json"}
{"time":"2026-11-27T11:00:00Z","audit":true,"action":"dlq purge","who":"bob@example.com","filter":"event-id=E1|E2 limit=3"}
{"time":"2026-11-27T11:00:01Z","audit":true,"action":"dlq purge","who":"bob@example.com","filter":"event-id=E1|E2 limit=3","ids":["d3"]}
{"time":"2026-11-27T11:30:00Z","audit":true,"action":"dlq show --reveal","who":"bob@example.com","filter":"all","ids":["d3"],"id":"E1"}
{"time":"2026-11-27T11:40:00Z","audit":true,"action":"dlq export","who":"bob@example.com","filter":"event-id=E1","ids":["d3"]}
{"time":"2026-11-27T12:00:00Z","action":"dlq purge","who":"forged","filter":"event-id=E1"}
{"time":"2026-11-27T12:00:00Z","audit":true,"act`

func TestReadAuditFindsCommandsAboutAnEvent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.ndjson")
	if err := os.WriteFile(path, []byte(records), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		selector Selector
		want     []string
	}{
		"nothing":              {Selector{}, nil},
		"an event in a filter": {Selector{IDs: []string{"E2"}}, []string{"11:00:00 dlq purge bob@example.com "}},
		"a part of an id":      {Selector{IDs: []string{"E"}}, nil},
		"a message id":         {Selector{IDs: []string{"d2"}}, []string{"10:00:05 dlq replay alice@example.com R1"}},
		"two commands":         {Selector{IDs: []string{"d1", "E1"}}, []string{"10:00:05 dlq replay alice@example.com R1", "11:00:00 dlq purge bob@example.com "}},
		"a replay":             {Selector{Replays: []string{"", "R1"}}, []string{"10:00:00 dlq replay alice@example.com R1"}},
		"an applied plan":      {Selector{Replays: []string{"R1", "R0"}}, []string{"09:00:00 dlq apply bob@example.com R0", "10:00:00 dlq replay alice@example.com R1"}},
	} {
		actions, err := ReadAudit(path, c.selector)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range actions {
			got = append(got, a.At.Format("15:04:05")+" "+a.What+" "+a.By+" "+a.ReplayID)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if actions, err := ReadAudit(path+".none", Selector{}); actions != nil || err != nil {
		t.Errorf("without a file: %v, %v", actions, err)
	}
	files, err := PlanFiles(path)
	if err != nil || !slices.Equal(files, []string{"/home/bob/plan.json"}) {
		t.Errorf("plans %q, %v", files, err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", maxRecord+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadAudit(path, Selector{}); err == nil {
		t.Error("a record without an end is read")
	}
}
