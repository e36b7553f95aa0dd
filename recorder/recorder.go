package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/sourcegraph/telemetry-relay/recorder/internal/hook"
)

// Recorder records events. It is safe for concurrent use. A nil Recorder, and one
// from [NewNoop], does nothing.
type Recorder struct {
	validator *validator // nil: does nothing
	outlet    outlet
	books     *books
	owned     *client // of this recorder alone, if any
}

// outlet takes the data of valid events.
type outlet interface {
	// put takes an event or says why not: ErrDropped or ErrClosed.
	put(ctx context.Context, data []byte) error
	// flush waits until everything put before is settled.
	flush(ctx context.Context) error
	// close takes nothing more, flushes, and then gives up the rest.
	close(ctx context.Context) error
}

// New returns a recorder. It does not need Pub/Sub to be there yet: the error is
// about the configuration or missing credentials, and names all faults. The
// recorder is nil then, which may be used all the same and does nothing.
//
// ctx is for finding credentials only.
func New(ctx context.Context, cfg Config) (*Recorder, error) {
	ctx = orBackground(ctx)
	cfg, err := cfg.complete()
	v, serviceErr := newValidator(cfg.Service)
	if err := errors.Join(err, serviceErr); err != nil {
		return nil, err
	}
	v.process = cfg.Process
	books := newBooks(cfg.Logger, target(cfg)...)
	r := &Recorder{validator: v, books: books}
	// A publisher that traces adds to the attributes of each message.
	to := topicSender{cfg.Publisher, v.attributes, true}
	why := new(cause)
	if cfg.Publisher == nil {
		if r.owned, err = newClient(ctx, cfg, why); err != nil {
			return nil, err
		}
		to = topicSender{r.owned.publisher, v.attributes, false}
	}
	books.perMessage = v.attributeBytes
	r.outlet = newPipeline(cfg, to, books, why)
	return r, nil
}

// NewNoop returns a recorder that does nothing, for where telemetry is off.
func NewNoop() *Recorder { return &Recorder{} }

// Record records that action happened to feature, both constants (see
// [DynamicFeature]). It returns at once (unless Config.BlockFor allows it to wait
// for room) and never panics. The error may be ignored, since it is counted and
// logged:
//   - *[InvalidError]: the relay would reject the event;
//   - [ErrDropped]: the buffer is full;
//   - [ErrClosed]: the recorder has been closed.
//
// nil means that the event will be published, unless Pub/Sub is away for longer
// than Config.RetryFor, refuses it, or the process ends before.
func (r *Recorder) Record(ctx context.Context, feature untypedConstFeature, action untypedConstAction, opts ...Option) error {
	return r.record(orBackground(ctx), Feature(feature), Action(action), opts)
}

// RecordBestEffort is Record for callers that do nothing with its error.
func (r *Recorder) RecordBestEffort(ctx context.Context, feature untypedConstFeature, action untypedConstAction, opts ...Option) {
	_ = r.record(orBackground(ctx), Feature(feature), Action(action), opts) // counted and logged
}

func (r *Recorder) record(ctx context.Context, feature Feature, action Action, opts []Option) (err error) {
	if r == nil || r.validator == nil {
		return nil
	}
	defer func() {
		// Whatever panics here is the service's own code, such as Config.Process. What
		// it says is not repeated: it may be private.
		if recover() != nil {
			err = &InvalidError{feature, action, "invalid_event", "an option or Config.Process panicked"}
			r.books.refuse(err)
		}
	}()
	data, stripped, err := r.validator.encode(ctx, feature, action, opts)
	if err == nil {
		err = r.outlet.put(ctx, data)
	}
	switch {
	case err != nil:
		r.books.refuse(err)
	case stripped != nil:
		r.books.strip(stripped)
	}
	return err
}

// Flush waits until Pub/Sub has confirmed or refused everything that was recorded
// before. The error is that of ctx when it ends first, and the events are still on
// their way; or [ErrFailed] if events were not published since the last Flush.
func (r *Recorder) Flush(ctx context.Context) error {
	if r == nil || r.outlet == nil {
		return nil
	}
	return r.outlet.flush(orBackground(ctx))
}

// Close takes no more events, publishes what is left, and ends everything that
// runs behind. What Pub/Sub has not confirmed when ctx ends is given up, counted
// as failed and reported as [ErrUnconfirmed]; the client's own goroutines then end
// within seconds. Events that were not published since the last Flush are reported
// as [ErrFailed]. Close may be called again; the first ctx to end counts.
func (r *Recorder) Close(ctx context.Context) error {
	if r == nil || r.outlet == nil {
		return nil
	}
	err := r.outlet.close(orBackground(ctx))
	if r.owned != nil {
		err = errors.Join(err, r.owned.close(!errors.Is(err, ErrUnconfirmed)))
	}
	r.books.close()
	return err
}

// Stats counts events since the start.
type Stats struct {
	// Published were confirmed by Pub/Sub.
	Published uint64
	// Failed were taken, but refused by Pub/Sub, or not confirmed in time.
	Failed uint64
	// Dropped were not taken: the buffer was full, or the recorder closed.
	Dropped uint64
	// Invalid were not taken: the relay would reject them.
	Invalid uint64
	// Stripped were taken without their private metadata, which the relay would
	// reject. They are counted among the others, too.
	Stripped uint64
	// Buffered are taken and not settled yet.
	Buffered uint64
	// PublishedBytes and BufferedBytes are the sizes of these events' messages as
	// Pub/Sub counts them: the data, and the names and values of the attributes.
	PublishedBytes, BufferedBytes uint64
}

// Stats returns the counts of this recorder.
func (r *Recorder) Stats() Stats {
	if r == nil || r.books == nil {
		return Stats{}
	}
	return r.books.stats()
}

func init() {
	hook.New = func(service any, taps hook.Tap) (any, error) {
		s, ok := service.(Service)
		if !ok {
			return nil, fmt.Errorf("recorder: expected a Service, got %T", service)
		}
		v, err := newValidator(s)
		if err != nil {
			return nil, err
		}
		books := newBooks(slog.New(slog.DiscardHandler))
		books.onStrip = taps.Stripped
		books.onRefuse, books.perMessage = taps.Refused, v.attributeBytes
		return &Recorder{validator: v, books: books, outlet: &tap{tap: taps, attributes: v.attributes, books: books}}, nil
	}
}
