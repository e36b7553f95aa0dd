package plan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func begun(p *Plan) Record { return Record{Kind: Begun, Plan: p.ID, Checksum: p.Checksum} }

func receipt(message, origin string, v Verdict) Record {
	return Record{Kind: Receipted, Receipts: []Receipt{{Message: message, Origin: origin, Verdict: v, Reason: map[Verdict]string{Rejected: "oversized"}[v]}}}
}

func TestStateCountsTheRecords(t *testing.T) {
	for _, c := range []struct {
		name    string
		records []Record
		want    Counts
	}{
		{"begun", nil, Counts{Planned: 5, Todo: 5}},
		{"published", []Record{{Kind: Published, IDs: []string{"1", "2"}}}, Counts{Planned: 5, Published: 2, Waiting: 2, Todo: 3}},
		{"published twice", []Record{{Kind: Published, IDs: []string{"1"}}, {Kind: Published, IDs: []string{"1"}}}, Counts{Planned: 5, Published: 1, Waiting: 1, Todo: 4}},
		{"purged", []Record{{Kind: Purged, IDs: []string{"4"}}}, Counts{Planned: 5, Purged: 1, Todo: 4}},
		{"left", []Record{{Kind: Left, IDs: []string{"1", "4"}, Why: "w"}}, Counts{Planned: 5, Left: 2, Todo: 3}},
		{"left, then done", []Record{{Kind: Left, IDs: []string{"1"}}, {Kind: Published, IDs: []string{"1"}}, {Kind: Left, IDs: []string{"1"}}}, Counts{Planned: 5, Published: 1, Waiting: 1, Todo: 4}},
		{"receipts", []Record{
			{Kind: Published, IDs: []string{"1", "2", "3"}}, receipt("r1", "o1", Recorded), receipt("r2", "o2", Rejected), receipt("r3", "o3", Duplicate),
		}, Counts{Planned: 5, Published: 3, Recorded: 1, Rejected: 1, Duplicates: 1, Todo: 2}},
		{"a receipt twice", []Record{{Kind: Published, IDs: []string{"1"}}, receipt("r1", "o1", Recorded), receipt("r1", "o1", Recorded)}, Counts{Planned: 5, Published: 1, Recorded: 1, Todo: 4}},
		{"two deliveries of one event", []Record{{Kind: Published, IDs: []string{"1"}}, receipt("r1", "o1", Duplicate), receipt("r2", "o1", Recorded), receipt("r3", "o1", Rejected)}, Counts{Planned: 5, Published: 1, Recorded: 1, Todo: 4}},
		{"a receipt before the publication is known", []Record{receipt("r1", "o1", Recorded)}, Counts{Planned: 5, Todo: 5}},
		{"a receipt of another message", []Record{{Kind: Published, IDs: []string{"1"}}, receipt("r1", "x", Rejected)}, Counts{Planned: 5, Published: 1, Waiting: 1, Todo: 4}},
		{"a verdict of a later worker", []Record{{Kind: Published, IDs: []string{"1"}}, receipt("r1", "o1", "postponed")}, Counts{Planned: 5, Published: 1, Waiting: 1, Todo: 4}},
		{"seen in the queue", []Record{{Kind: Published, IDs: []string{"1", "2"}}, {Kind: CameBack, IDs: []string{"o1"}}}, Counts{Planned: 5, Published: 2, Rejected: 1, Waiting: 1, Todo: 3}},
		{"seen in the queue, and recorded by another delivery", []Record{{Kind: Published, IDs: []string{"1"}}, {Kind: CameBack, IDs: []string{"o1"}}, receipt("r", "o1", Recorded)}, Counts{Planned: 5, Published: 1, Recorded: 1, Todo: 4}},
	} {
		p := example(t)
		s := NewState(p)
		for _, r := range append([]Record{begun(p)}, c.records...) {
			if err := s.Add(r); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if got := s.Counts(); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
		var sum Counts
		for _, g := range s.Groups() {
			sum.Planned += g.Counts.Planned
			sum.Published += g.Counts.Published
			sum.Purged += g.Counts.Purged
			sum.Left += g.Counts.Left
			sum.Todo += g.Counts.Todo
			sum.Recorded += g.Counts.Recorded
			sum.Duplicates += g.Counts.Duplicates
			sum.Rejected += g.Counts.Rejected
			sum.Waiting += g.Counts.Waiting
		}
		if sum != c.want {
			t.Errorf("%s: by fault %+v, want %+v", c.name, sum, c.want)
		}
	}
}

func TestStateRefusesRecordsOutsideThePlan(t *testing.T) {
	for name, c := range map[string]struct {
		record Record
		want   string
	}{
		"another plan":           {Record{Kind: Begun, Plan: "x"}, "the journal of another plan"},
		"a plan that was edited": {Record{Kind: Begun, Plan: "20261120T100000Z-abc234", Checksum: "x"}, "the journal of another plan"},
		"a message of no group":  {Record{Kind: Published, IDs: []string{"9"}}, "the plan does not say so"},
		"a purge to publish":     {Record{Kind: Published, IDs: []string{"4"}}, "the plan does not say so"},
		"a publish to purge":     {Record{Kind: Purged, IDs: []string{"1"}}, "the plan does not say so"},
		"a later version":        {Record{Kind: "paused"}, "a later version has written it"},
	} {
		p := example(t)
		s := NewState(p)
		if err := s.Add(begun(p)); err != nil {
			t.Fatal(err)
		}
		if err := s.Add(c.record); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	if err := NewState(example(t)).Add(Record{Kind: Published}); err == nil {
		t.Error("a journal that does not begin")
	}
}

func TestCanariesAreCountedSeparately(t *testing.T) {
	p := example(t)
	s := NewState(p)
	for _, r := range []Record{begun(p), {Kind: Canaries, IDs: []string{"1", "2"}}, {Kind: Published, IDs: []string{"1", "2", "3"}}, receipt("r", "o2", Rejected), receipt("q", "o3", Recorded)} {
		if err := s.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := s.CanaryCounts(), (Counts{Planned: 2, Published: 2, Rejected: 1, Waiting: 1}); got != want {
		t.Errorf("%+v", got)
	}
	if s.Passed || s.Add(Record{Kind: CanariesPassed}) != nil || !s.Passed {
		t.Error("passed")
	}
}

func TestPlanIsCompleteOnceTheQueueHasConfirmed(t *testing.T) {
	p := example(t)
	s := NewState(p)
	at := created
	for i, c := range []struct {
		record  Record
		inQueue int
		want    bool
	}{
		{begun(p), 0, false},
		{Record{Kind: Published, IDs: []string{"1", "2", "3"}}, 3, false},
		{Record{Kind: Removed, IDs: []string{"1", "2", "5"}}, 1, false}, // 5 is not done yet
		{Record{Kind: Purged, IDs: []string{"4", "5"}}, 3, false},
		{Record{Kind: Ended, Why: "interrupted"}, 3, false},
		{begun(p), 3, false},
		{Record{Kind: Removed, IDs: []string{"3", "4", "5"}}, 0, true},
	} {
		at = at.Add(time.Minute)
		c.record.At = at
		if err := s.Add(c.record); err != nil {
			t.Fatal(err)
		}
		if got := len(s.InQueue(at.Add(1))); s.Complete() != c.want || got != c.inQueue {
			t.Errorf("record %d: complete %v, %d in the queue", i, s.Complete(), got)
		}
	}
	if got := NewState(p).InQueue(at); got != nil {
		t.Error(got)
	}
}

// TestInQueueOmitsMessagesPublishedJustNow: a run that was killed may still lease the
// messages that it published last.
func TestInQueueOmitsMessagesPublishedJustNow(t *testing.T) {
	p := example(t)
	s := NewState(p)
	for _, r := range []Record{begun(p), {At: created, Kind: Published, IDs: []string{"1"}}, {At: created.Add(time.Hour), Kind: Published, IDs: []string{"2"}}} {
		if err := s.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.InQueue(created.Add(time.Minute)); fmt.Sprint(got) != "[1]" {
		t.Error(got)
	}
}

// TestJournalSurvivesACrash cuts the last record at every byte. The records before it must
// stay. Meanwhile no other process can open the journal.
func TestJournalSurvivesACrash(t *testing.T) {
	p := example(t)
	path := JournalOf(filepath.Join(t.TempDir(), "plan.json"))
	if s, err := ReadJournal(path, p); err != nil || s.Runs != 0 {
		t.Errorf("%+v %v", s, err)
	}
	open := func() *Journal {
		t.Helper()
		j, err := OpenJournal(path, p)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	j := open()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if err := j.Append(begun(p), Record{Kind: Published, IDs: []string{"1"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournal(path, p); !errors.Is(err, ErrBusy) {
		t.Errorf("a second process: %v", err)
	}
	if s, err := ReadJournal(path, p); err != nil || !s.Done("1") {
		t.Errorf("%+v %v", s, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// A crash may cut the second record anywhere.
	second := strings.Index(string(whole), "\n") + 1
	for at := second; at < len(whole); at++ {
		if err := os.WriteFile(path, whole[:at], 0o600); err != nil {
			t.Fatal(err)
		}
		j := open()
		if j.State.Runs != 1 || j.State.Done("1") {
			t.Errorf("cut at %d: %+v", at, j.State)
		}
		if err := j.Append(Record{Kind: Published, IDs: []string{"2"}}); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		j = open()
		if !j.State.Done("2") {
			t.Errorf("cut at %d, then continued: %+v", at, j.State)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// A crash cannot damage a record before the last one, so that such a journal is refused.
	for _, text := range []string{"nonsense\n" + string(whole), string(whole) + "{}\n", string(whole) + `{"kind":"published","ids":["9"]}` + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenJournal(path, p); err == nil || !strings.Contains(err.Error(), "of the journal") {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

func TestJournalWritesNothingAfterAFailure(t *testing.T) {
	p := example(t)
	j, err := OpenJournal(filepath.Join(t.TempDir(), "j"), p)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
	first := j.Append(begun(p))
	if second := j.Append(begun(p)); first == nil || fmt.Sprint(first) != fmt.Sprint(second) || j.State.Runs != 0 {
		t.Errorf("%v, then %v", first, second)
	}
}
