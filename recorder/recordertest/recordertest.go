// Package recordertest has a recorder for services' own tests: it checks events as the real
// one does, and keeps them in memory.
//
//	rec := recordertest.New(t)
//	handler := NewHandler(rec.Recorder)
//	…
//	rec.AssertOnce("cody.hover", "shown", recorder.Metadata{"tier": 1})
package recordertest

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
	"github.com/sourcegraph/telemetry-relay/recorder"
	"github.com/sourcegraph/telemetry-relay/recorder/internal/hook"
)

// Recorder keeps events in memory. Give the code under test the embedded Recorder.
// It is safe for concurrent use.
type Recorder struct {
	*recorder.Recorder

	tb      testing.TB
	decoder *event.Decoder // for WithServices; else nil

	mu       sync.Mutex
	events   []Event
	refused  []error
	stripped []error
}

// Event is an event that was recorded.
type Event struct {
	Feature         recorder.Feature         `json:"feature"`
	Action          recorder.Action          `json:"action"`
	ID              string                   `json:"id"`
	Timestamp       time.Time                `json:"timestamp"`
	Metadata        recorder.Metadata        `json:"metadata"`
	MetadataVersion recorder.MetadataVersion `json:"metadataVersion"`
	PrivateMetadata recorder.PrivateMetadata `json:"privateMetadata"`
	Billing         recorder.Billing         `json:"billingMetadata"`
	User            recorder.User            `json:"user"`
	Client          recorder.Client          `json:"client"`
	Interaction     recorder.Interaction     `json:"interaction"`
	FeatureFlags    recorder.FeatureFlags    `json:"featureFlags"`
	Marketing       recorder.Marketing       `json:"marketingTracking"`
	Data            []byte                   `json:"-"` // of the message, as it would be published
	Attributes      map[string]string        `json:"-"` // of the message
}

// Option is an option of New.
type Option func(*options)

type options struct {
	service      recorder.Service
	services     func() (*policy.Set, error)
	allowInvalid bool
}

// WithService sets the service that records. The default is the service "test" without
// environment and version.
func WithService(s recorder.Service) Option { return func(o *options) { o.service = s } }

// WithServices also checks events against the content of a services.yaml, as the
// relay does. An event that it forbids is refused with a *recorder.InvalidError. An
// empty text checks nothing.
func WithServices(yaml string) Option {
	return func(o *options) {
		if yaml == "" {
			return
		}
		o.services = func() (*policy.Set, error) { return servicesyaml.Parse([]byte(yaml)) }
	}
}

// WithServicesFile is WithServices for a file, which may refer to catalogues beside it.
func WithServicesFile(file string) Option {
	return func(o *options) {
		o.services = func() (*policy.Set, error) { return servicesyaml.ParseFile(file) }
	}
}

// AllowInvalid lets the test pass in spite of invalid events, and of events whose private
// metadata was left out; see Refused and Stripped.
func AllowInvalid() Option { return func(o *options) { o.allowInvalid = true } }

// New returns a recorder for one test. Services ignore the error of Record. So an invalid
// event, or one whose private metadata had to be left out, fails the test at its end,
// unless AllowInvalid is given.
func New(tb testing.TB, opts ...Option) *Recorder {
	tb.Helper()
	o := options{service: recorder.Service{ID: "test"}}
	for _, opt := range opts {
		opt(&o)
	}
	r := &Recorder{tb: tb}
	if o.services != nil {
		services, err := o.services()
		if err != nil {
			tb.Fatalf("recordertest: %v", err)
		}
		r.decoder = event.NewDecoder(services, "test")
	}
	r.Recorder = newTap(tb, o.service, hook.Tap{Put: r.put, Refused: r.refuse, Stripped: r.strip})
	tb.Cleanup(func() {
		for _, err := range r.Stripped() {
			if !o.allowInvalid {
				tb.Errorf("an event was recorded without its private metadata: %v", err)
			}
		}
		for _, err := range r.Refused() {
			if invalid := (*recorder.InvalidError)(nil); !o.allowInvalid && errors.As(err, &invalid) {
				tb.Errorf("an invalid event was not recorded: %v", err)
			}
		}
	})
	return r
}

func newTap(tb testing.TB, service recorder.Service, tap hook.Tap) *recorder.Recorder {
	tb.Helper()
	made, err := hook.New(service, tap)
	if err != nil {
		tb.Fatalf("recordertest: %v", err)
	}
	rec, ok := made.(*recorder.Recorder)
	if !ok {
		tb.Fatalf("recordertest: got a %T", made)
	}
	return rec
}

func (r *Recorder) put(data []byte, attributes map[string]string) error {
	e := Event{Data: data, Attributes: attributes}
	if err := json.Unmarshal(data, &e); err != nil {
		return err
	}
	if r.decoder != nil {
		if _, rejection := r.decoder.Decode(event.Message{Data: data, Attributes: attributes}); rejection != nil {
			return &recorder.InvalidError{Feature: e.Feature, Action: e.Action, Reason: string(rejection.Reason), Detail: rejection.Detail}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	return nil
}

func (r *Recorder) refuse(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = append(r.refused, err)
}

func (r *Recorder) strip(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stripped = append(r.stripped, err)
}

// Events returns the recorded events in their order.
func (r *Recorder) Events() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Refused returns the errors of the events that were not recorded.
func (r *Recorder) Refused() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.refused)
}

// Stripped returns why events were recorded without their private metadata.
func (r *Recorder) Stripped() []error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.stripped)
}

// Reset removes all events and errors.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events, r.refused, r.stripped = nil, nil, nil
}

// CheckNames fails the test for each feature or action that the relay would
// reject.
func CheckNames(tb testing.TB, names ...interface{ Check() error }) {
	tb.Helper()
	for _, name := range names {
		if err := name.Check(); err != nil {
			tb.Errorf("%T %q: %v", name, name, err)
		}
	}
}
