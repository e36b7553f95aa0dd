package trace

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// maxRecord bounds one audit record, in bytes. maxAudit bounds the part of an audit
	// file that is read, in bytes: its end, which has the newest records.
	maxRecord = 1 << 20
	maxAudit  = 256 << 20
)

// Selector says which audit records are about an event.
type Selector struct {
	// IDs are those of the event and of its messages. Replays are those in which it took
	// part.
	IDs, Replays []string
}

// audited is the part of an audit record that a trace reads. Commands write two records:
// one before the change and one after it, with the ids.
type audited struct {
	Audit    bool      `json:"audit"`
	Time     time.Time `json:"time"`
	Action   string    `json:"action"`
	Who      string    `json:"who"`
	Filter   string    `json:"filter"`
	ReplayID string    `json:"replay_id"`
	Plan     string    `json:"plan"` // the replay id of an applied plan
	PlanFile string    `json:"plan_file"`
	IDs      []string  `json:"ids"`
}

// ReadAudit returns the commands in an audit file that are about an event, in the order of
// time. A missing file has none. Commands that only read private data are left out.
func ReadAudit(path string, s Selector) ([]Action, error) {
	var actions []Action
	err := eachRecord(path, func(r audited) {
		if !s.selects(r) {
			return
		}
		action := Action{At: r.Time.UTC(), By: r.Who, What: r.Action, Filter: r.Filter, ReplayID: r.ReplayID}
		// The second record of a command adds nothing to the first.
		if !slices.ContainsFunc(actions, func(a Action) bool { return a.same(action) }) {
			actions = append(actions, action)
		}
	})
	slices.SortStableFunc(actions, func(a, b Action) int { return a.At.Compare(b.At) })
	return actions, err
}

// eachRecord calls use for each record of a change in an audit file.
func eachRecord(path string, use func(audited)) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	if info, err := file.Stat(); err == nil && info.Size() > maxAudit {
		if _, err := file.Seek(info.Size()-maxAudit, io.SeekStart); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxRecord)
	for lines.Scan() {
		var record audited
		if json.Unmarshal(bytes.TrimSpace(lines.Bytes()), &record) != nil || !record.Audit || !changes(record.Action) {
			continue // not of this program, or cut by a crash
		}
		if record.ReplayID == "" {
			record.ReplayID = record.Plan
		}
		use(record)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the audit records: %w", err)
	}
	return nil
}

// PlanFiles returns the files of the plans that were applied, by the audit records, the
// latest first.
func PlanFiles(path string) ([]string, error) {
	var files []string
	err := eachRecord(path, func(r audited) {
		if r.PlanFile != "" {
			files = append(slices.DeleteFunc(files, func(f string) bool { return f == r.PlanFile }), r.PlanFile)
		}
	})
	slices.Reverse(files)
	return files, err
}

// changes reports whether a command changes the queue.
func changes(action string) bool {
	switch verb, _, _ := strings.Cut(strings.TrimPrefix(action, "dlq "), " "); verb {
	case "replay", "apply", "purge", "restore":
		return true
	}
	return false
}

// same reports whether two records are of one command.
func (a Action) same(b Action) bool {
	if a.ReplayID != "" || b.ReplayID != "" {
		return a.ReplayID == b.ReplayID
	}
	return a.What == b.What && a.By == b.By && a.Filter == b.Filter && b.At.Sub(a.At).Abs() < time.Hour
}

func (s Selector) selects(r audited) bool {
	if r.ReplayID != "" && slices.Contains(s.Replays, r.ReplayID) {
		return true
	}
	for _, id := range s.IDs {
		if slices.Contains(r.IDs, id) || names(r.Filter, id) {
			return true
		}
	}
	return false
}

// names reports whether a filter selects by an id, in its form event-id=A|B message-id=C.
func names(filter, id string) bool {
	for part := range strings.FieldsSeq(filter) {
		name, values, _ := strings.Cut(part, "=")
		if (name == "event-id" || name == "message-id") && slices.Contains(strings.Split(values, "|"), id) {
			return true
		}
	}
	return false
}
