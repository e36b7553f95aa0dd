package recordertest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/recorder"
	"github.com/sourcegraph/telemetry-relay/recorder/recordertest"
)

// fakeTB notes failures instead of failing.
type fakeTB struct {
	testing.TB
	failures []string
	cleanups []func()
}

func (f *fakeTB) Helper() {}
func (f *fakeTB) Errorf(format string, args ...any) {
	f.failures = append(f.failures, fmt.Sprintf(format, args...))
}
func (f *fakeTB) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic(f)
}
func (f *fakeTB) Cleanup(fn func()) { f.cleanups = append(f.cleanups, fn) }

// end returns the failures once the test is over.
func (f *fakeTB) end() []string {
	for _, fn := range slices.Backward(f.cleanups) {
		fn()
	}
	return f.failures
}

func TestAssertionsReportDifferences(t *testing.T) {
	record := func(r *recordertest.Recorder) {
		_ = r.Record(context.Background(), "cody.hover", "shown", recorder.Metadata{"tier": 1, "x": 2}, recorder.User{SAMSExternalID: "u", UserID: 7})
		_ = r.Record(context.Background(), "cody.hover", "hidden")
	}
	for _, c := range []struct {
		name   string
		assert func(r *recordertest.Recorder)
		want   []string // parts of the one failure; none means success
	}{
		{"once", func(r *recordertest.Recorder) { r.AssertOnce("cody.hover", "shown") }, nil},
		{"some of the metadata", func(r *recordertest.Recorder) { r.AssertOnce("cody.hover", "shown", recorder.Metadata{"tier": 1}) }, nil},
		{"some of the user", func(r *recordertest.Recorder) { r.AssertOnce("cody.hover", "shown", recorder.User{UserID: 7}) }, nil},
		{"never", func(r *recordertest.Recorder) { r.AssertNever("cody.hover", "shown", recorder.Metadata{"tier": 2}) }, nil},
		{"times", func(r *recordertest.Recorder) { r.AssertTimes(2, "cody.hover", "shown") }, []string{
			"want recorded cody.hover/shown 2 times, got once; recorded were:\n  cody.hover/shown with tier=1, x=2, user {\"samsExternalId\":\"u\",\"userId\":7}\n  cody.hover/hidden",
		}},
		{"other value", func(r *recordertest.Recorder) { r.AssertOnce("cody.hover", "shown", recorder.Metadata{"tier": 2}) }, []string{
			"want recorded cody.hover/shown with tier=2 once, got never", "but metadata.tier: want 2, got 1",
		}},
		{"missing", func(r *recordertest.Recorder) { r.AssertOnce("cody.hover", "hidden", recorder.Client{Name: "web"}) }, []string{
			`but client: want {"name":"web"}, and there is none`,
		}},
		{"never, but was", func(r *recordertest.Recorder) { r.AssertNever("cody.hover", "hidden") }, []string{"want recorded cody.hover/hidden never, got once"}},
		{"impossible", func(r *recordertest.Recorder) { r.AssertOnce("Cody", "hidden") }, []string{"an event as wanted can never be recorded", "Cody"}},
		{"nothing", func(r *recordertest.Recorder) { r.Reset(); r.AssertOnce("cody.hover", "shown") }, []string{"got never; nothing was recorded"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb := &fakeTB{}
			r := recordertest.New(tb)
			record(r)
			c.assert(r)
			failures := tb.end()
			if len(c.want) == 0 != (len(failures) == 0) || len(failures) > 1 {
				t.Fatalf("failures: %q", failures)
			}
			for _, want := range c.want {
				if !strings.Contains(failures[0], want) {
					t.Errorf("want %q in:\n%s", want, failures[0])
				}
			}
		})
	}
}

func TestInvalidFailsTheTest(t *testing.T) {
	tb := &fakeTB{}
	r := recordertest.New(tb)
	_ = r.Record(t.Context(), "Cody", "shown")
	if failures := tb.end(); len(failures) != 1 || !strings.Contains(failures[0], "Cody") {
		t.Errorf("%q", failures)
	}
	tb = &fakeTB{}
	r = recordertest.New(tb, recordertest.AllowInvalid())
	_ = r.Record(t.Context(), "Cody", "shown")
	if failures := tb.end(); len(failures) != 0 || len(r.Refused()) != 1 || len(r.Events()) != 0 {
		t.Errorf("%q, %v", failures, r.Refused())
	}
}

const services = `
services:
  - id: sams
    environments: [prod]
    features: ["sams.*"]
    privateMetadata: reject
`

func TestServicesAreSeparate(t *testing.T) {
	r := recordertest.New(t, recordertest.WithServices(services), recordertest.AllowInvalid(),
		recordertest.WithService(recorder.Service{ID: "sams", Environment: "prod"}))
	for _, c := range []struct {
		feature recorder.Feature
		opt     recorder.Option
		reason  string
	}{
		{"sams.user", nil, ""},
		{"cody.hover", nil, "policy_violation"},
		{"sams.user", recorder.PrivateMetadata{"a": 1}, "policy_violation"},
	} {
		err := r.Record(t.Context(), recorder.DynamicFeature(string(c.feature)), "created", c.opt)
		var invalid *recorder.InvalidError
		switch {
		case c.reason == "" && err != nil:
			t.Error(err)
		case c.reason != "" && (!errors.As(err, &invalid) || invalid.Reason != c.reason || invalid.Feature != c.feature):
			t.Errorf("got %v, want %s", err, c.reason)
		}
	}
	if len(r.Events()) != 1 || len(r.Refused()) != 2 || r.Stats().Published != 1 || r.Stats().Invalid != 2 {
		t.Errorf("%+v, %v", r.Events(), r.Stats())
	}
	tb := &fakeTB{}
	func() {
		defer func() { _ = recover() }()
		recordertest.New(tb, recordertest.WithServices("services: 7"))
	}()
	if len(tb.failures) != 1 {
		t.Errorf("%q", tb.failures)
	}
}

func TestEventIsReadable(t *testing.T) {
	r := recordertest.New(t, recordertest.WithService(recorder.Service{ID: "sams", Version: "1.2.3"}))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { _ = r.Record(t.Context(), "ab", "cd") })
	}
	wg.Wait()
	r.AssertTimes(20, "ab", "cd")
	r.Reset()
	_ = r.Record(t.Context(), "sams.user", "created", recorder.Metadata{"n": 1}, recorder.Marketing{CohortID: "c"}, recorder.Billing{Product: "p"})
	e := r.Events()[0]
	if e.Feature != "sams.user" || e.Action != "created" || e.ID == "" || e.Timestamp.IsZero() || e.Metadata["n"] != 1 ||
		e.Marketing.CohortID != "c" || e.Billing.Product != "p" || e.Attributes["service_version"] != "1.2.3" {
		t.Errorf("%+v", e)
	}
	line := string(r.Lines())
	if !strings.HasPrefix(line, `{"attributes":{"schema_version":"1","service_id":"sams","service_version":"1.2.3"},"data":{"feature":"sams.user",`) ||
		!strings.HasSuffix(line, "}\n") {
		t.Errorf("%s", line)
	}
}

// TestLinesKeepEveryByte requires that every line restores the message exactly.
func TestLinesKeepEveryByte(t *testing.T) {
	r := recordertest.New(t, recordertest.WithService(recorder.Service{ID: "sams", Version: "<\u0085>"}))
	for _, text := range []string{"plain é", "<b>&amp;</b>", "\u2028\u202e\u0085", "tab\tand\nbreak"} {
		_ = r.Record(t.Context(), "ab", "cd", recorder.PrivateMetadata{"text": text, "raw": json.RawMessage(`{"a":  1}`)})
	}
	lines := strings.Split(strings.TrimSuffix(string(r.Lines()), "\n"), "\n")
	if len(lines) != len(r.Events()) {
		t.Fatalf("%d lines", len(lines))
	}
	for i, e := range r.Events() {
		m, err := ndjson.Parse([]byte(lines[i]))
		if err != nil || !bytes.Equal(m.Data, e.Data) || !maps.Equal(m.Attributes, e.Attributes) {
			t.Errorf("%s: %v; want %s, %v", lines[i], err, e.Data, e.Attributes)
		}
	}
	if !strings.Contains(lines[0], `"data":{`) || !strings.Contains(lines[2], `"dataBase64":`) {
		t.Errorf("%s\n%s", lines[0], lines[2])
	}
}

func TestCheckNames(t *testing.T) {
	tb := &fakeTB{}
	recordertest.CheckNames(tb, recorder.Feature("cody.hover"), recorder.Action("shown"), recorder.Feature("cody_hover"), recorder.Action("Shown"))
	if len(tb.failures) != 2 || !strings.Contains(tb.failures[0], "cody_hover") {
		t.Errorf("%q", tb.failures)
	}
}

func TestCheckCatalogue(t *testing.T) {
	tb := &fakeTB{}
	r := recordertest.New(tb, recordertest.WithService(recorder.Service{ID: "cody-analytics"}))
	_ = r.Record(t.Context(), "cody.hover", "shown", recorder.Metadata{"tier": 1}, recorder.PrivateMetadata{"repository": "x"})
	r.CheckCatalogue("../../examples/telemetry.yaml")
	if len(tb.failures) != 0 {
		t.Errorf("%q", tb.failures)
	}
	_ = r.Record(t.Context(), "cody.hover", "shown", recorder.Metadata{"teir": 1})
	_ = r.Record(t.Context(), "cody.chat", "shown")
	r.CheckCatalogue("../../examples/telemetry.yaml")
	if len(tb.failures) != 2 || !strings.Contains(tb.failures[0], `cody.hover shown: metadata.teir: the catalogue allows "durationMs", "tier"`) ||
		!strings.Contains(tb.failures[1], `the catalogue does not list "shown" of "cody.chat"`) {
		t.Errorf("%q", tb.failures)
	}
	func() {
		defer func() { _ = recover() }()
		r.CheckCatalogue("no such file")
	}()
	if len(tb.failures) != 3 {
		t.Errorf("%q", tb.failures)
	}
}
