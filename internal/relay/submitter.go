package relay

import (
	"log/slog"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/limit"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// submitter carries submissions to the gateway: as many streams at once as the limit
// allows, over as many connections as they need. The loop owns it.
type submitter struct {
	run         *run
	gateway     Gateway
	encoder     *encoder
	limit       *limit.Limit
	connections *limit.Connections
	results     chan submissionResult // to the loop
	falls       int                   // of the limit, that the metrics know of
}

// newLimit returns the limit of the streams that the options ask for.
func newLimit(opts Options) *limit.Limit {
	if opts.Streams > 0 {
		return limit.Fixed(opts.Streams)
	}
	return limit.Adaptive(max(1, opts.MaxStreams))
}

func newSubmitter(r *run, to Gateway, e *encoder, l *limit.Limit) *submitter {
	return &submitter{
		run: r, gateway: to, encoder: e, limit: l,
		connections: limit.NewConnections(l.Max()),
		results:     make(chan submissionResult, l.Max()), // a stream never waits for the loop
	}
}

// active is how many streams there are.
func (c *submitter) active() int { return c.limit.InFlight() }

// free reports whether another stream may start.
func (c *submitter) free() bool { return c.active() < c.limit.Limit() }

// start starts the stream of a submission.
func (c *submitter) start(s *submission) {
	s.publisher.active++
	s.publisher.service.active++
	s.publisher.countReceived()
	b := submit.Batch{
		RequestID: requestID(),
		Publisher: s.publisher.id,
		Events:    make([]*event.Event, len(s.events)),
		Canary:    s.failures > 0,
	}
	bytes := 0
	var missing []dropped
	for i, e := range s.events {
		e.submissions++
		size := e.size()
		bytes += size
		b.Events[i] = &e.event
		if size > len(e.event.Wire) {
			missing = append(missing, dropped{i, messageOf(e.message), size})
		}
	}
	s.size.events, s.size.bytes = len(s.events), bytes
	s.connection = c.connection(s)
	b.Connection = s.connection
	c.limit.Started(s.size.events)
	c.run.metrics.BatchEvents.Observe(float64(len(s.events)))
	c.run.metrics.BatchBytes.Observe(float64(bytes))

	ctx, ended := s.trace(c.run.work, c.run.opts.Tracer, SubmissionInfo{
		RequestID: b.RequestID, Events: len(b.Events), Bytes: bytes, Try: int(s.events[0].submissions), Suspect: s.suspect(),
	})
	log := c.run.log
	if log.Enabled(ctx, slog.LevelDebug) { // the arguments of a message that is not logged cost memory
		log.DebugContext(ctx, "Submitting a batch", "request_id", b.RequestID, "service_id", b.Publisher.ServiceID,
			"service_environment", b.Publisher.Environment, "events", len(b.Events), "bytes", bytes,
			"suspect", s.suspect(), "failures", s.failures)
	}
	c.run.spawn(func() {
		var result submit.Result
		if len(missing) > 0 {
			result = c.encoder.submit(ctx, c.gateway, b, missing)
		} else {
			result = c.gateway.Submit(ctx, b)
		}
		if ended != nil {
			ended(result)
		}
		c.results <- submissionResult{submission: s, result: result}
		if result.Failure != nil {
			log.DebugContext(ctx, "A stream to the gateway failed", "request_id", b.RequestID, "code", result.Code().String(), "class", result.Failure.Class.String())
		}
	})
}

// connection chooses the connection of a submission: another one for each try of an
// event that was left out.
func (c *submitter) connection(s *submission) int {
	if s.suspect() && len(s.events) == 1 {
		return c.connections.StartOn(int(s.events[0].submissions) % limit.FewestConnections)
	}
	return c.connections.Start()
}

// count notes that a stream has ended.
func (c *submitter) count(s *submission, result submit.Result) {
	s.publisher.active--
	s.publisher.service.active--
	c.run.metrics.Submissions.WithLabelValues(result.Code().String()).Inc()
	if result.Took > 0 {
		c.run.metrics.SubmissionSeconds.Observe(result.Took.Seconds())
	}
}

// adapt adapts the limit to a stream that has ended, with so many of its events recorded
// and so many others ready to be submitted.
func (c *submitter) adapt(s *submission, result submit.Result, recorded, ready int, now time.Time) {
	c.connections.Ended(s.connection)
	c.limit.Ended(limit.End{
		Outcome: capacityOutcome(s, result, recorded),
		Latency: result.Took,
		Events:  s.size.events,
		Bytes:   s.size.bytes,
		Waiting: ready,
	}, now)
	c.countFalls()
}

// reset notes that the breaker has opened: few streams may follow at first.
func (c *submitter) reset() {
	c.limit.Reset()
	c.countFalls()
}

// countFalls has the metrics say why the limit fell, if it did.
func (c *submitter) countFalls() {
	if falls := c.limit.Falls(); falls != c.falls {
		c.falls = falls
		c.run.metrics.SubmitConcurrencyFalls.WithLabelValues(string(c.limit.Reason())).Inc()
	}
}

// capacityOutcome is what the end of a stream says about the gateway's capacity.
func capacityOutcome(s *submission, result submit.Result, recorded int) limit.Outcome {
	failure := result.Failure
	switch {
	case recorded > 0 && (failure == nil || recorded == s.size.events):
		return limit.Answered
	case failure == nil:
		return limit.Ignored // the verdict on events that are left out is not about capacity
	case s.suspect(), s.isolated:
		return limit.Ignored // the events may be at fault
	case failure.Class != submit.Transient, result.Took == 0:
		return limit.Ignored // refused for another reason, or never sent
	case failure.NoCapacity():
		return limit.Refused
	}
	return limit.Failed
}

// maxCapacityRefusals is how often a batch may be refused for lack of capacity before
// that counts as any other failure: the gateway may be unavailable.
const maxCapacityRefusals = 8

// outOfCapacity reports whether a failure only says that the gateway has no capacity for
// another stream beside those that are in flight.
func (c *submitter) outOfCapacity(s *submission, failure *submit.Failure) bool {
	return failure.NoCapacity() && c.active() > 0 && !s.suspect() && !s.isolated && s.refused < maxCapacityRefusals
}
