package relay

import (
	"container/heap"
	"slices"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/limit"
	"github.com/sourcegraph/telemetry-relay/internal/turns"
)

// submissionQueue has the events that wait to be submitted: fresh ones in groups, and
// those that are submitted again in submissions. The loop owns it.
type submissionQueue struct {
	run        *run
	settlement *settlement
	limit      *limit.Limit

	groups *batch.Groups[*service, *publisher, *inflight]
	// delayed are submissions whose backoff goes on; delayedOthers is how many of them
	// have no suspects.
	delayed       submissionHeap
	delayedOthers int
	// Submissions whose backoff is over wait for their turn. Those of suspects wait
	// apart, since they may not be submitted at any time.
	retries      turns.Queue[*service, *publisher, *submission]
	retryEvents  int // events of the retries, when they came
	pieces       turns.Queue[*service, *publisher, *submission]
	tries        []*submission
	latestSource int // whose turn the latest submission was: see loop.next
}

const (
	// The delay after a stream that failed.
	firstRetry = 250 * time.Millisecond
	maxRetry   = 10 * time.Second
)

func newSubmissionQueue(r *run, s *settlement, l *limit.Limit) *submissionQueue {
	return &submissionQueue{run: r, settlement: s, limit: l, groups: batch.NewGroups[*service, *publisher, *inflight](r.opts.Batch)}
}

// add has a fresh event wait for its batch.
func (q *submissionQueue) add(e *inflight, now time.Time) {
	q.groups.Add(now, &e.publisher.waiting, e.size(), e)
}

// retry submits events again after a delay of at least atLeast. The cause is a value of
// a metric's label.
func (q *submissionQueue) retry(s *submission, cause string, atLeast time.Duration, now time.Time) {
	q.retryAfter(s, cause, q.run.backoff(s.attempts, firstRetry, maxRetry, atLeast), now)
}

// retryAfter submits events again after a delay.
func (q *submissionQueue) retryAfter(s *submission, cause string, delay time.Duration, now time.Time) {
	if len(s.events) == 0 {
		return
	}
	if q.run.stopping {
		q.settlement.releaseRest(s.events, false)
		return
	}
	q.run.metrics.EventsRetried.WithLabelValues(cause).Add(float64(len(s.events)))
	s.due = now.Add(delay)
	s.attempts++
	s.traceRetry(cause, now)
	heap.Push(&q.delayed, s)
	if !s.suspect() {
		q.delayedOthers++
	}
}

// retryHalves submits the halves of a batch apart, to find the event that its streams
// fail for.
func (q *submissionQueue) retryHalves(s *submission, cause string, now time.Time) {
	for _, half := range s.halves() {
		q.retry(half, cause, 0, now)
	}
}

// retryNow ends the backoff of all events but suspects, so that a half-open breaker has
// streams to decide by.
func (q *submissionQueue) retryNow(now time.Time) {
	for _, s := range q.delayed {
		if !s.suspect() {
			s.due = now
		}
	}
	heap.Init(&q.delayed)
	q.groups.Flush()
}

// endDelays has submissions whose backoff is over wait for their turn.
func (q *submissionQueue) endDelays(now time.Time) {
	for len(q.delayed) > 0 && !q.delayed[0].due.After(now) {
		s := heap.Pop(&q.delayed).(*submission)
		if !s.suspect() {
			q.delayedOthers--
		}
		q.push(s)
	}
}

// push has a submission wait for its turn.
func (q *submissionQueue) push(s *submission) {
	switch s.role {
	case try:
		q.tries = append(q.tries, s)
	case suspected:
		q.pieces.Push(s.publisher.service, s.publisher, s)
	case ordinary:
		q.retries.Push(s.publisher.service, s.publisher, s)
		q.retryEvents += len(s.events)
	}
}

// busy says who has all the streams that it may have. A service leaves one stream to
// the others, and an environment leaves another one to those of its service that have
// events in flight, if there are any: streams that hang must hold up nobody else.
func (q *submissionQueue) busy() turns.Busy[*service, *publisher] {
	streams := q.limit.Limit()
	return turns.Busy[*service, *publisher]{
		Service: func(s *service) bool { return s.active >= max(1, streams-1) },
		Environment: func(p *publisher) bool {
			return p.service.publishers > 1 && p.active >= max(1, streams-2)
		},
	}
}

// nextBatch takes the next batch of fresh events, nil if none is due. partial asks for one that
// is not due.
func (q *submissionQueue) nextBatch(partial bool, now time.Time) *submission {
	next := q.groups.Next
	if partial {
		next = q.groups.NextPartial
	}
	for {
		b, ok := next(now, q.busy())
		if !ok {
			return nil
		}
		if events := unsettled(b.Items); len(events) > 0 {
			return &submission{publisher: events[0].publisher, events: events}
		}
	}
}

// nextRetry takes the next submission without suspects whose backoff is over.
func (q *submissionQueue) nextRetry() *submission {
	return q.nextOf(&q.retries, func(s *submission) { q.retryEvents -= len(s.events) })
}

// nextPiece takes the next submission of suspects.
func (q *submissionQueue) nextPiece() *submission { return q.nextOf(&q.pieces, func(*submission) {}) }

// nextOf takes the next submission of a queue that has an event left. taken is called
// for each submission that leaves the queue.
func (q *submissionQueue) nextOf(from *turns.Queue[*service, *publisher, *submission], taken func(*submission)) *submission {
	for {
		s, ok := from.Next(q.busy())
		if !ok {
			return nil
		}
		taken(s)
		if s.dropSettled() {
			return s
		}
	}
}

// nextTry takes the first try that fits.
func (q *submissionQueue) nextTry(fits func(*submission) bool) *submission {
	q.tries = slices.DeleteFunc(q.tries, func(s *submission) bool { return len(s.events) == 0 || s.events[0].settled })
	busy := q.busy()
	for i, s := range q.tries {
		if fits(s) && !busy.Service(s.publisher.service) && !busy.Environment(s.publisher) {
			q.tries = slices.Delete(q.tries, i, i+1)
			return s
		}
	}
	return nil
}

// allTries yields the tries that wait, for their backoff or for their turn.
func (q *submissionQueue) allTries(yield func(*submission) bool) {
	for _, list := range [][]*submission{q.tries, q.delayed} {
		for _, s := range list {
			if s.role == try && !yield(s) {
				return
			}
		}
	}
}

// othersWait reports whether events wait to be submitted, apart from suspects.
func (q *submissionQueue) othersWait() bool {
	return q.groups.Len() > 0 || q.retries.Len() > 0 || q.delayedOthers > 0
}

// readyEvents is how many events wait for a stream to end. full says that nothing more
// can arrive before an event is settled: then no batch waits to fill.
func (q *submissionQueue) readyEvents(full bool, now time.Time) int {
	if full {
		return q.groups.Len() + q.retryEvents
	}
	return q.groups.Ready(now) + q.retryEvents
}

// due is when the next batch or the end of the next backoff is due.
func (q *submissionQueue) due() (at time.Time, ok bool) {
	at, ok = q.groups.Due()
	if len(q.delayed) > 0 && (!ok || q.delayed[0].due.Before(at)) {
		at, ok = q.delayed[0].due, true
	}
	return at, ok
}

// takeRetries empties the queue but for fresh events.
func (q *submissionQueue) takeRetries() []*submission {
	all := slices.Concat(q.retries.TakeAll(), q.pieces.TakeAll(), q.tries, q.delayed)
	q.tries, q.delayed, q.delayedOthers, q.retryEvents = nil, nil, 0, 0
	return all
}
