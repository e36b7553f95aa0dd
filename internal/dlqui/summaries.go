package dlqui

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// summaries keeps the summary of each plan until one of its files changes. A plan of many
// messages takes a while to read, and open pages ask for it again and again. The zero value
// has no summary. It is safe for concurrent use.
type summaries struct {
	mu   sync.Mutex // guards kept
	kept map[string]keptSummary
}

type keptSummary struct {
	of  [3]version
	sum *summary
	err error
}

// version identifies the content of a file.
type version struct {
	size     int64
	modified time.Time
}

func versionOf(path string) version {
	info, err := os.Stat(path)
	if err != nil {
		return version{} // it is not there
	}
	return version{info.Size(), info.ModTime()}
}

// of returns the summary of a plan and its journal.
func (k *summaries) of(path string) (*summary, error) {
	now := [3]version{versionOf(path), versionOf(plan.JournalOf(path)), versionOf(plan.BackupOf(path))}
	k.mu.Lock()
	defer k.mu.Unlock()
	if known, ok := k.kept[path]; ok && known.of == now {
		return known.sum, known.err
	}
	sum, err := summarize(path)
	if k.kept == nil {
		k.kept = map[string]keptSummary{}
	}
	k.kept[path] = keptSummary{now, sum, err}
	return sum, err
}

// summarize reads a plan and its journal.
func summarize(path string) (*summary, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := plan.Parse(text, func(jq string) error {
		_, err := dlq.CompileFix(jq)
		return err
	})
	if err != nil {
		return nil, err
	}
	state, err := plan.ReadJournal(plan.JournalOf(path), p)
	if err != nil {
		return nil, err
	}
	s := &summary{Counts: state.Counts(), Whys: state.Whys(), Runs: state.Runs, By: state.By, Last: state.Last, Ended: state.End != "" || state.Complete(), Complete: state.Complete()}
	for _, g := range state.Groups() {
		s.Groups = append(s.Groups, groupSummary{
			Fault: g.Fault, Reason: g.Reason, Service: g.Service, Detail: g.Detail, Step: g.Step(),
			Matched: g.Matched, Stay: g.Failing + g.OverMaxReplays, Counts: g.Counts, Reasons: g.Reasons,
		})
	}
	s.Backup, err = countLines(plan.BackupOf(path))
	return s, err
}

// countLines counts the lines of a file; none if there is no file.
func countLines(path string) (n int, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close() //nolint:errcheck // it was only read
	buffer := make([]byte, 64<<10)
	for {
		read, err := f.Read(buffer)
		n += bytes.Count(buffer[:read], []byte{'\n'})
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}
