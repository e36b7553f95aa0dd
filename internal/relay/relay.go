// Package relay is the worker: it wires the stages and owns what lies between
// them. One goroutine, the loop, owns every event from its arrival to its
// settlement and all decisions about it; the other goroutines only do I/O for
// it and report back.
package relay

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/batch"
	"github.com/sourcegraph/telemetry-relay/internal/consume"
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

// DeadLetters writes what cannot be delivered.
type DeadLetters interface {
	// Write returns what became of each letter.
	Write(ctx context.Context, letters []*dlq.DeadLetter) []error
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
	// Consume bounds what is held.
	Consume consume.Options

	// Drain ends the run when nothing has come for DrainIdle; otherwise it goes
	// on until it is told to stop.
	Drain     bool
	DrainIdle time.Duration
	// ReceiveWindow is how long a drain receives at most; 0 means no limit.
	ReceiveWindow time.Duration
	// ShutdownTimeout bounds the time from the decision to stop to the end.
	ShutdownTimeout time.Duration

	// Services and Environment are what events are checked against.
	Services    *policy.Set
	Environment string

	// Preflight is done before anything is pulled. It survives what passes; its
	// error ends the run.
	Preflight func(context.Context) error
	// OnProgress, if set, is called by the loop a few times a second, and at the
	// end. It must return at once.
	OnProgress func(Progress)

	// Tracer, if set, follows batches.
	Tracer Tracer

	// Decode replaces the decoder of events, if set: for tests.
	Decode Decode
	// Seed of what is drawn by chance; 0 means another one each time.
	Seed uint64

	Metrics *metrics.Metrics
	Logger  *slog.Logger
}

// Decode is event.Decoder's DecodeInto.
type Decode func(buf []byte, m event.Message) (event.Event, []byte, *event.Rejection)

// Progress is how far a run is.
type Progress struct {
	Books
	Held        int    // events that are not settled
	Redelivered int    // further deliveries of them
	State       string // what the run is doing or waiting for, in a few words
}

// Relay is one run of the worker.
type Relay struct {
	opts     Options
	gateway  Gateway
	letters  DeadLetters
	receiver *consume.Receiver
	decoder  *event.Decoder
	decoded  Decode // is its DecodeInto, or replaces it
	bulks    bulks
	log      *slog.Logger
	m        *metrics.Metrics
	status   atomic.Pointer[Status]
	beat     atomic.Int64 // unix nanoseconds of the loop's last turn

	// To the loop.
	arrivals chan arrival
	results  chan outcome
	buried   chan burial
	probes   chan error
	checks   chan emptiness
	ended    chan error // of receiving
	ready    chan error // of the preflight
	over     chan struct{}

	loop
}

// New returns a run that will receive from sub.
func New(sub consume.Subscriber, gateway Gateway, letters DeadLetters, opts Options) *Relay {
	r := &Relay{
		opts:     opts,
		gateway:  gateway,
		letters:  letters,
		decoder:  event.NewDecoder(opts.Services, opts.Environment),
		decoded:  opts.Decode,
		bulks:    newBulks(opts.Consume.MaxBytes),
		log:      opts.Logger,
		m:        opts.Metrics,
		arrivals: make(chan arrival),
		buried:   make(chan burial, 1),
		probes:   make(chan error, 1),
		checks:   make(chan emptiness, 1),
		ended:    make(chan error, 1),
		ready:    make(chan error, 1),
		over:     make(chan struct{}),
	}
	if r.decoded == nil {
		r.decoded = r.decoder.DecodeInto
	}
	opts.Consume.Logger = opts.Logger
	opts.Consume.OnStreamEnd = func(err error, refused bool) {
		if refused {
			r.m.PubSubStreamRefusals.WithLabelValues(consume.Code(err)).Inc()
		}
	}
	r.receiver = consume.NewReceiver(sub, opts.Consume, r.receive)
	r.loop = newLoop(opts)
	r.results = make(chan outcome, r.limit.Max())
	r.status.Store(&Status{Reason: "starting"})
	return r
}

// Discard ends a relay that will not be run.
func (r *Relay) Discard() { r.receiver.Close() }

// Run relays until it is done, the deadline is near, or ctx ends, which stops it
// in good order. It may be called once. The error says why the run failed; the
// summary is valid in any case.
func (r *Relay) Run(ctx context.Context) (Summary, error) {
	// Work goes on after ctx has ended; the loop cancels it.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	r.work, r.cancelWork = work, cancel

	// A panic in one of them must not be caught: its answer would never come.
	var goroutines sync.WaitGroup
	r.spawn = goroutines.Go
	err := r.run(ctx)
	cancel()
	close(r.over)
	goroutines.Wait()
	r.receiver.Close()
	return r.summary(), err
}
