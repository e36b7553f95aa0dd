package dlqcmd

import (
	"github.com/dustin/go-humanize"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// news is what is rejected while a replay is under way, as far as it says that
// the replay makes things worse.
type news struct {
	say func(format string, args ...any)
	// kinds are those of the replayed events.
	kinds dlq.Kinds

	seen  map[string]struct{} // dead letters' ids: a letter may be seen more than once
	again int                 // of seen, events that were replayed
}

// maxNews bounds the memory.
const maxNews = 100_000

// add takes a letter that came after the replay began.
func (n *news) add(s *dlq.Stored) {
	if !n.kinds.Has(s) || len(n.seen) >= maxNews {
		return
	}
	if _, ok := n.seen[s.ID]; ok {
		return
	}
	if n.seen == nil {
		n.seen = map[string]struct{}{}
		n.say("worker: warning: events of a kind that is replayed are still rejected: %s, such as %s. Ctrl-C stops the replay", dlq.KindOf(s), nameOf(s))
	}
	n.seen[s.ID] = struct{}{}
	if s.Replays > 0 {
		n.again++
	}
}

// sum tells how many there were.
func (n *news) sum() {
	if len(n.seen) > 0 {
		n.say("worker: warning: since the start %s of the kinds that were replayed came in, %s of them events that had been replayed; the cause may still be there",
			command.Plural(len(n.seen), "new letter"), humanize.Comma(int64(n.again)))
	}
}
