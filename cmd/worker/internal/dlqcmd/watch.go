package dlqcmd

import (
	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// watch counts messages that are rejected during a replay and are of a replayed kind: the
// cause of the rejections is still there.
type watch struct {
	say func(format string, args ...any)
	// kinds are those of the replayed events.
	kinds dlq.Kinds

	seen  map[string]struct{} // message ids: Pub/Sub may deliver a message twice
	again int                 // of seen, events that were replayed
}

// maxWatched bounds the memory.
const maxWatched = 100_000

// add counts a message that came after the replay began.
func (w *watch) add(s *dlq.Stored) {
	if !w.kinds.Has(s) || len(w.seen) >= maxWatched {
		return
	}
	if _, ok := w.seen[s.ID]; ok {
		return
	}
	if w.seen == nil {
		w.seen = map[string]struct{}{}
		w.say("worker: warning: events of a kind that is replayed are still rejected: %s, such as %s. Ctrl-C stops the replay", dlq.KindOf(s), nameOf(s))
	}
	w.seen[s.ID] = struct{}{}
	if s.Replays > 0 {
		w.again++
	}
}

// report says how many there were.
func (w *watch) report() {
	if len(w.seen) > 0 {
		w.say("worker: warning: since the start %s of the kinds that were replayed came in, %s of them events that had been replayed; the cause may still be there",
			command.Plural(len(w.seen), "new message"), command.Comma(w.again))
	}
}
