// Package relay wires the stages of the worker and owns the events between them. One
// goroutine, the loop, owns every event from its arrival to its settlement and makes all
// decisions about it. The other goroutines only do I/O for the loop and report back.
package relay

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
	"github.com/sourcegraph/telemetry-relay/internal/dedup"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// Gateway records batches.
type Gateway interface {
	// Submit sends a batch and waits for the outcome.
	Submit(ctx context.Context, b submit.Batch) submit.Result
	// Probe asks whether the gateway and its credentials are there; its error is
	// a *submit.Failure.
	Probe(ctx context.Context, requestID string) error
	// Tokenless reports whether SAMS has given no token yet.
	Tokenless() bool
}

// DeadLetters writes rejected messages to the dead-letter topic.
type DeadLetters interface {
	// Write returns an error for each message; nil: the topic has confirmed it.
	Write(ctx context.Context, messages []*dlq.DeadLetter) []error
}

// Options of a run.
type Options struct {
	// Batch limits what is submitted together.
	Batch batch.Limits
	// Streams is how many streams to the gateway may be in flight; 0: that adapts to
	// the gateway, up to MaxStreams.
	Streams, MaxStreams int
	// RejectAfter is how many tries must count against an event that the gateway
	// leaves out before it is dead-lettered, at least; 0: it never is.
	RejectAfter int
	// RejectSpan is the time that those tries cover, at least; 0 means
	// verdict.DefaultSpan. Only tests have a reason to shorten it.
	RejectSpan time.Duration
	// Consume bounds how much may be in flight.
	Consume consume.Options

	// Drain ends the run when nothing has come for DrainIdle; otherwise it goes
	// on until its context ends.
	Drain     bool
	DrainIdle time.Duration
	// ReceiveWindow is how long a drain receives at most; 0 means no limit.
	ReceiveWindow time.Duration
	// ShutdownTimeout bounds the time from the decision to stop to the end.
	ShutdownTimeout time.Duration

	// Services and Environment are what events are checked against.
	Services    *policy.Set
	Environment string

	// Preflight is done before anything is pulled. It retries transient errors itself;
	// its error ends the run.
	Preflight func(context.Context) error
	// OnProgress, if set, is called by the loop a few times a second, and at the
	// end. It must return at once.
	OnProgress func(Progress)

	// OnVerdict, if set, is called by the loop for each rejected message and for each
	// replayed message, when its verdict is settled. It must return at once.
	OnVerdict func(Verdict)

	// Tracer, if set, traces batches.
	Tracer Tracer

	// Decode replaces the decoder of events, if set: for tests.
	Decode Decode
	// Seed of the random numbers; 0 means another one each time.
	Seed uint64

	Metrics *metrics.Metrics
	Logger  *slog.Logger
}

// Decode is event.Decoder's DecodeInto.
type Decode func(buf []byte, m event.Message) (event.Event, []byte, *event.Rejection)

// Relay is one run of the worker. Its methods but Run may be called at any time by any
// goroutine.
type Relay struct {
	opts        Options
	gateway     Gateway
	deadLetters DeadLetters
	receiver    *consume.Receiver
	decoding    *decoding
	run         *run

	// The loop writes these, others read them.
	status atomic.Pointer[Status]
	beat   atomic.Int64 // unix nanoseconds of the loop's start or latest tick
}

// New returns a run that will receive from sub.
func New(sub consume.Subscriber, gateway Gateway, deadLetters DeadLetters, opts Options) *Relay {
	r := &Relay{opts: opts, gateway: gateway, deadLetters: deadLetters, decoding: newDecoding(opts, dedup.NewHasher()), run: newRun(opts)}
	consuming := opts.Consume
	consuming.Logger = opts.Logger
	consuming.OnStreamEnd = func(err error, refused bool) {
		if refused {
			opts.Metrics.PubSubStreamRefusals.WithLabelValues(consume.Code(err)).Inc()
		}
	}
	r.receiver = consume.NewReceiver(sub, consuming, r.decoding.receive)
	r.status.Store(&Status{Reason: "starting"})
	return r
}

// Discard ends a relay that will not be run.
func (r *Relay) Discard() { r.receiver.Close() }

// Run relays until it is done, the deadline is near, or ctx ends, which stops it
// in good order. It may be called once. The error says why the run failed; the
// summary is valid in any case.
func (r *Relay) Run(ctx context.Context) (Summary, error) {
	// Goroutines are not guarded against panics: the loop would wait for their results.
	var goroutines sync.WaitGroup
	now := time.Now()
	r.beat.Store(now.UnixNano())
	r.run.begin(ctx, goroutines.Go, now)
	l := newLoop(r, now)
	err := l.relay(ctx, r.decoding.arrivals, func(now time.Time) { r.report(l, now) })
	r.report(l, time.Now())
	r.countEnd(l.stopping.why, err)
	r.run.cancelWork()
	close(r.decoding.over)
	goroutines.Wait()
	r.receiver.Close()
	return Summary{
		Accounting:      l.settlement.accounting.copy(),
		Ended:           l.stopping.why,
		DurationSeconds: time.Since(l.started).Round(time.Millisecond).Seconds(),
	}, err
}

// countEnd counts a run that ended for this reason, with this error.
func (r *Relay) countEnd(why Ended, err error) {
	r.run.metrics.RunEnded.WithLabelValues(string(why)).Inc()
	if err == nil {
		r.run.metrics.LastSuccess.Set(float64(time.Now().Unix()))
	}
}

// Status is what the loop last said of itself.
type Status struct {
	// Ready means that every dependency of the worker is available.
	Ready bool
	// Reason says which one is not.
	Reason string
}

// Progress is how far a run is.
type Progress struct {
	Accounting
	InFlight    int    // events that are not settled
	Redelivered int    // further deliveries of them
	State       string // what the run is doing or waiting for, in a few words
}

// stuckAfter is how long the loop may not tick. It does no I/O, so a second would be
// long.
const stuckAfter = 30 * time.Second

// Status returns whether the run is ready, and if not, why.
func (r *Relay) Status() Status { return *r.status.Load() }

// Alive returns an error when the loop is stuck.
func (r *Relay) Alive() error {
	beat := r.beat.Load()
	if beat != 0 && time.Since(time.Unix(0, beat)) > stuckAfter {
		return errors.New("the relay's loop is stuck")
	}
	return nil
}

// report brings the status and the metrics up to date. The loop calls it.
func (r *Relay) report(l *loop, now time.Time) {
	r.beat.Store(now.UnixNano())
	health := r.receiver.Health()
	l.receiving.watch(health, now)
	l.measure(health.Open, now)
	s := l.status(health, now)
	r.status.Store(&s)
	if r.opts.OnProgress == nil {
		return
	}
	state := s.Reason
	switch {
	case s.Ready && l.inflight.count == 0:
		state = "waiting for events"
	case s.Ready:
		state = "relaying"
	}
	r.opts.OnProgress(Progress{
		Accounting: l.settlement.accounting.copy(), InFlight: l.inflight.count, Redelivered: l.inflight.redelivered, State: state,
	})
}
