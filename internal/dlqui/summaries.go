package dlqui

import (
	"os"
	"sync"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// summaries keeps the summaries of plans whose files have not changed: a plan of many
// messages takes a while to read, and pages ask for it again and again. The zero value has
// none. It is safe for concurrent use.
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

// of returns the summary of a plan.
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
