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
	validator  *validator // nil in a recorder that does nothing
	outlet     outlet
	accounting *accounting
	owned      *client // nil if the caller has the client
}

// outlet takes the data of valid events.
type outlet interface {
	// put takes an event, or returns ErrDropped or ErrClosed.
	put(ctx context.Context, data []byte) error
	// flush waits until all events put before are settled.
	flush(ctx context.Context) error
	// close accepts no more events, flushes, and then gives up the rest.
	close(ctx context.Context) error
}

// New returns a recorder. Pub/Sub need not be available yet: errors are about the
// configuration, of which they list all faults, or about missing credentials. With an error
// the recorder is nil, which may be used and does nothing.
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
	accounting := newAccounting(cfg.Logger, target(cfg)...)
	r := &Recorder{validator: v, accounting: accounting}
	// A publisher that traces adds to the attributes of each message.
	to := topicSender{cfg.Publisher, v.attributes, true}
	why := new(cause)
	if cfg.Publisher == nil {
		if r.owned, err = newClient(ctx, cfg, why); err != nil {
			return nil, err
		}
		to = topicSender{r.owned.publisher, v.attributes, false}
	}
	accounting.perMessage = v.attributeBytes
	r.outlet = newPipeline(cfg, to, accounting, why)
	return r, nil
}

// NewNoop returns a recorder that does nothing, for services with telemetry switched off.
func NewNoop() *Recorder { return &Recorder{} }

// Record records that action happened to feature, both constants (see [DynamicFeature]). It returns at once (unless Config.BlockFor allows it to wait for space) and never panics. The error may be ignored, because the recorder counts and logs it:
//   - *[InvalidError]: the relay would reject the event;
//   - [ErrDropped]: the buffer is full;
//   - [ErrClosed]: the recorder has been closed.
//
// Without an error the event will be published, unless Pub/Sub is unavailable for longer
// than Config.RetryFor, refuses it, or the process ends before.
func (r *Recorder) Record(ctx context.Context, feature untypedConstFeature, action untypedConstAction, opts ...Option) error {
	return r.record(orBackground(ctx), Feature(feature), Action(action), opts)
}

// RecordBestEffort is Record for callers that ignore its error.
func (r *Recorder) RecordBestEffort(ctx context.Context, feature untypedConstFeature, action untypedConstAction, opts ...Option) {
	_ = r.record(orBackground(ctx), Feature(feature), Action(action), opts) // counted and logged
}

func (r *Recorder) record(ctx context.Context, feature Feature, action Action, opts []Option) (err error) {
	if r == nil || r.validator == nil {
		return nil
	}
	defer func() {
		// Only code of the service can panic here, such as Config.Process. The panic's text
		// is not repeated, because it may be private.
		if recover() != nil {
			err = &InvalidError{feature, action, "invalid_event", "an option or Config.Process panicked"}
			r.accounting.refuse(err)
		}
	}()
	data, stripped, err := r.validator.encode(ctx, feature, action, opts)
	if err == nil {
		err = r.outlet.put(ctx, data)
	}
	switch {
	case err != nil:
		r.accounting.refuse(err)
	case stripped != nil:
		r.accounting.strip(stripped)
	}
	return err
}

// Flush waits until Pub/Sub has confirmed or refused all events that were recorded before.
// It returns the error of ctx if that ends first, while the events are still being sent, or
// [ErrFailed] if events were not published since the last Flush.
func (r *Recorder) Flush(ctx context.Context) error {
	if r == nil || r.outlet == nil {
		return nil
	}
	return r.outlet.flush(orBackground(ctx))
}

// Close accepts no more events, publishes the remaining ones, and ends the recorder's
// goroutines. When ctx ends, it gives up the events that Pub/Sub has not confirmed: they
// count as failed, and the error is [ErrUnconfirmed]. The client's own goroutines then end
// within seconds. If events were not published since the last Flush, the error is
// [ErrFailed]. Close may be called again; the first ctx to end counts.
func (r *Recorder) Close(ctx context.Context) error {
	if r == nil || r.outlet == nil {
		return nil
	}
	err := r.outlet.close(orBackground(ctx))
	if r.owned != nil {
		err = errors.Join(err, r.owned.close(!errors.Is(err, ErrUnconfirmed)))
	}
	r.accounting.close()
	return err
}

// Stats counts events since the start.
type Stats struct {
	// Published events were confirmed by Pub/Sub.
	Published uint64
	// Failed events were taken, but refused by Pub/Sub, or not confirmed in time.
	Failed uint64
	// Dropped events were not taken: the buffer was full, or the recorder closed.
	Dropped uint64
	// Invalid events were not taken: the relay would reject them.
	Invalid uint64
	// Stripped events were taken without their private metadata, which the relay would
	// reject. They are counted among the others, too.
	Stripped uint64
	// Buffered events were taken and are not settled yet.
	Buffered uint64
	// PublishedBytes and BufferedBytes are the sizes of these events' messages as
	// Pub/Sub counts them: the data, and the names and values of the attributes.
	PublishedBytes, BufferedBytes uint64
}

// Stats returns the counts of this recorder.
func (r *Recorder) Stats() Stats {
	if r == nil || r.accounting == nil {
		return Stats{}
	}
	return r.accounting.stats()
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
		accounting := newAccounting(slog.New(slog.DiscardHandler))
		accounting.onStrip = taps.Stripped
		accounting.onRefuse, accounting.perMessage = taps.Refused, v.attributeBytes
		return &Recorder{validator: v, accounting: accounting, outlet: &tap{tap: taps, attributes: v.attributes, accounting: accounting}}, nil
	}
}
