package recorder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/race"
	"github.com/sourcegraph/telemetry-relay/recorder/internal/hook"
)

// taken is a recorder that keeps the data of its events.
type taken struct {
	*Recorder
	mu   sync.Mutex
	data [][]byte
}

func newTaken(tb testing.TB) *taken {
	tb.Helper()
	k := &taken{}
	made, err := hook.New(Service{ID: "sams", Environment: "prod", Version: "1.2.3"}, hook.Tap{Put: func(data []byte, _ map[string]string) error {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.data = append(k.data, data)
		return nil
	}})
	if err != nil {
		tb.Fatal(err)
	}
	k.Recorder = made.(*Recorder)
	return k
}

// last returns the last event as a tree.
func (k *taken) last(tb testing.TB) map[string]any {
	tb.Helper()
	var tree map[string]any
	if err := json.Unmarshal(k.data[len(k.data)-1], &tree); err != nil {
		tb.Fatal(err)
	}
	return tree
}

func TestAllFieldsAreEncoded(t *testing.T) {
	k := newTaken(t)
	err := k.Record(tracedContext(), "cody.hover", "shown",
		ID("019a0000-0000-7000-8000-000000000001"),
		Timestamp(time.Date(2026, 11, 20, 10, 0, 0, 120_000_000, time.FixedZone("", 3600))),
		Metadata{"tier": 1, "ratio": 0.25, "huge": 1e300, "minus": -7, "sure": Bool(true), "not": Bool(false)},
		MetadataVersion(2),
		PrivateMetadata{"text": "a\"b\\c\n\x01é<", "none": nil, "yes": true, "n": 3, "n64": int64(-4), "list": []any{1.5, "x"}, "object": map[string]int{"a": 1}},
		User{SAMSExternalID: "s", AnonymousUserID: "a", UserID: -42},
		Client{Name: "VSCode.Cody", Version: "1.84.0"},
		Interaction{InteractionID: "i", CountryCode: "IN"},
		Billing{Product: "cody", Category: "billable"},
		FeatureFlags{"b": "control", "a": ""},
		Marketing{"1", "2", "3", "4", "5", "6", "7", "8"},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"feature": "cody.hover", "action": "shown",
		"id": "019a0000-0000-7000-8000-000000000001", "timestamp": "2026-11-20T09:00:00.12Z",
		"metadata":        map[string]any{"tier": 1.0, "ratio": 0.25, "huge": 1e300, "minus": -7.0, "sure": 1.0, "not": 0.0},
		"metadataVersion": 2.0,
		"privateMetadata": map[string]any{"text": "a\"b\\c\n\x01é<", "none": nil, "yes": true, "n": 3.0, "n64": -4.0, "list": []any{1.5, "x"}, "object": map[string]any{"a": 1.0}},
		"user":            map[string]any{"samsExternalId": "s", "anonymousUserId": "a", "userId": -42.0},
		"client":          map[string]any{"name": "VSCode.Cody", "version": "1.84.0"},
		"interaction":     map[string]any{"traceId": "01020300000000000000000000000000", "interactionId": "i", "countryCode": "IN"},
		"billingMetadata": map[string]any{"product": "cody", "category": "billable"},
		"featureFlags":    map[string]any{"a": "", "b": "control"},
		"marketingTracking": map[string]any{
			"url": "1", "firstSourceUrl": "2", "cohortId": "3", "referrer": "4", "lastSourceUrl": "5",
			"deviceSessionId": "6", "sessionReferrer": "7", "sessionFirstUrl": "8",
		},
	}
	if diff := cmp.Diff(want, k.last(t)); diff != "" {
		t.Error(diff)
	}
}

// TestFilledIn records only names: the recorder adds id and time.
func TestFilledIn(t *testing.T) {
	k := newTaken(t)
	before := time.Now()
	if err := k.Record(t.Context(), "sams.user", "created"); err != nil {
		t.Fatal(err)
	}
	got := k.last(t)
	id, _ := got["id"].(string)
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) {
		t.Errorf("the id is %q, no UUIDv7", id)
	}
	text, _ := got["timestamp"].(string)
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.Before(before.Truncate(0).Add(-time.Millisecond)) || at.After(time.Now().Add(time.Millisecond)) {
		t.Errorf("timestamp %q: %v", text, err)
	}
	if len(got) != 4 {
		t.Errorf("more than was asked for: %v", got)
	}
	if err := k.Record(t.Context(), "sams.user", "created"); err != nil || k.last(t)["id"] == id {
		t.Errorf("the same id again: %v", err)
	}
}

func TestContextOptions(t *testing.T) {
	k := newTaken(t)
	ctx := ContextWith(tracedContext(), User{SAMSExternalID: "outer"}, Client{Name: "web"})
	inner := ContextWith(ctx, User{SAMSExternalID: "inner"})
	other := ContextWith(ctx, Client{Name: "other"})
	for _, c := range []struct {
		ctx          context.Context
		opts         []Option
		user, client string
	}{
		{ctx, nil, "outer", "web"},
		{inner, nil, "inner", "web"},
		{other, nil, "outer", "other"},
		{inner, []Option{Client{Name: "given"}}, "inner", "given"},
	} {
		if err := k.Record(c.ctx, "ab", "cd", c.opts...); err != nil {
			t.Fatal(err)
		}
		got := k.last(t)
		user, _ := got["user"].(map[string]any)
		client, _ := got["client"].(map[string]any)
		if user["samsExternalId"] != c.user || client["name"] != c.client {
			t.Errorf("got %v", got)
		}
	}
	// A given trace id has precedence over the context's.
	if err := k.Record(ctx, "ab", "cd", Interaction{TraceID: "mine"}); err != nil {
		t.Fatal(err)
	}
	if got := k.last(t)["interaction"].(map[string]any)["traceId"]; got != "mine" {
		t.Errorf("trace id %v", got)
	}
}

type panics struct{}

func (panics) MarshalJSON() ([]byte, error) { panic("the secret") }

type fails struct{}

func (fails) MarshalJSON() ([]byte, error) { return nil, errors.New("the secret") }

func TestInvalidEventsAreRefused(t *testing.T) {
	k := newTaken(t)
	for _, c := range []struct {
		feature Feature
		action  Action
		opts    []Option
		want    string
	}{
		{"Cody", "shown", nil, `recorder: event "Cody", "shown": invalid_event: feature: expected 2 to 64 bytes`},
		{"ab", "", nil, `invalid_event: action: expected 2 to 64 bytes`},
		{"a\xff", "cd", nil, `feature: expected 2 to 64 bytes`},
		{"ab", "cd", []Option{Metadata{"x": math.NaN()}}, `metadata["x"]: expected a finite number, got NaN`},
		{"ab", "cd", []Option{Metadata{"x": math.Inf(-1)}}, `metadata["x"]: expected a finite number, got -Inf`},
		{"ab", "cd", []Option{MetadataVersion(-1)}, `metadataVersion: expected an integer from 0`},
		{"ab", "cd", []Option{ID("")}, `id: expected a UUID`},
		{"ab", "cd", []Option{Timestamp(time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC))}, `timestamp: expected RFC 3339`},
		{"ab", "cd", []Option{Metadata{DynamicKey("recordsPrivateMetadata" + strings.Repeat("k", 229)): 1}}, `: expected a key of at most 250 bytes, got 251`},
	} {
		err := k.Record(t.Context(), DynamicFeature(string(c.feature)), DynamicAction(string(c.action)), c.opts...)
		var invalid *InvalidError
		if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
			continue
		}
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("shows what is private: %v", err)
		}
		if invalid.Feature != c.feature || invalid.Action != c.action {
			t.Errorf("names the event %s/%s", invalid.Feature, invalid.Action)
		}
	}
	if len(k.data) != 0 {
		t.Errorf("recorded %d invalid events", len(k.data))
	}
	if got := k.Stats(); got != (Stats{Invalid: 9}) {
		t.Errorf("%+v", got)
	}
}

// TestBadPrivate requires that private metadata that the relay would reject is left out,
// and that the event is recorded and says so.
func TestBadPrivate(t *testing.T) {
	k := newTaken(t)
	var nilError *InvalidError
	bad := []struct {
		value any
		want  string
	}{
		{make(chan int), `privateMetadata: expected values that encoding/json takes; one of type chan int is none`},
		{fails{}, `one of type recorder.fails is none`},
		{panics{}, `privateMetadata: a value of type recorder.panics panicked`},
		{error(nilError), `privateMetadata: a value of type *recorder.InvalidError panicked`},
		{math.NaN(), `one of type float64 is none`},
		{json.RawMessage(`{"secret":1,"secret":2}`), `privateMetadata: duplicate key`},
		{json.RawMessage(`1e999`), `privateMetadata: expected a number within the range`},
		{json.RawMessage(`"\ud800"`), `malformed_payload: `},
		{json.RawMessage(strings.Repeat("[", 101) + strings.Repeat("]", 101)), `at most 100 levels`},
		{strings.Repeat("<", 2<<20), `oversized: the event is too large`},
		{json.RawMessage("1." + strings.Repeat("0", 10_000_000)), `oversized: the message is too large`},
	}
	var stripped []error
	k.accounting.onStrip = func(err error) { stripped = append(stripped, err) }
	for i, c := range bad {
		metadata := Metadata{"tier": 1}
		if err := k.Record(t.Context(), "ab", "cd", metadata, PrivateMetadata{"a": "before", "secret": c.value}); err != nil {
			t.Fatalf("%T: %v", c.value, err)
		}
		got := k.last(t)
		if want := map[string]any{"tier": 1.0, "telemetry.error": 1.0}; !cmp.Equal(got["metadata"], any(want)) || got["privateMetadata"] != nil {
			t.Errorf("%T: %v", c.value, got)
		}
		if len(stripped) != i+1 || !strings.Contains(stripped[i].Error(), c.want) || strings.Contains(stripped[i].Error(), "secret") {
			t.Errorf("%T: %v, want %s", c.value, stripped, c.want)
		}
		if len(metadata) != 1 {
			t.Errorf("the caller's metadata were changed: %v", metadata)
		}
	}
	// Without metadata of its own, and with a fault elsewhere.
	_ = k.Record(t.Context(), "ab", "cd", PrivateMetadata{"a": fails{}})
	if got := k.last(t)["metadata"]; !cmp.Equal(got, any(map[string]any{"telemetry.error": 1.0})) {
		t.Errorf("%v", got)
	}
	if err := k.Record(t.Context(), "ab", "CD", PrivateMetadata{"a": fails{}}); err == nil {
		t.Error("no error")
	}
	if got := k.Stats(); got.Published != uint64(len(bad)+1) || got.Stripped != uint64(len(bad)+1) || got.Invalid != 1 {
		t.Errorf("%+v", got)
	}
}

// TestErrorsAndText requires that an error becomes its text, and that invalid UTF-8 is
// replaced everywhere in the same way. The data have no line break.
func TestErrorsAndText(t *testing.T) {
	k := newTaken(t)
	err := k.Record(t.Context(), "ab", "cd",
		PrivateMetadata{"error": fmt.Errorf("open: %w", errors.New("no\xff such\nfile")), "s\xff": "a\xffb", "list": []string{"\xff"}, "raw": json.RawMessage("[\n\"\xff\"\n]")},
		Metadata{"k\xff": 1}, User{SAMSExternalID: "\xff"}, FeatureFlags{"f\xff": "\xff"}, Client{Name: "a\nb"})
	if err != nil {
		t.Fatal(err)
	}
	got := k.last(t)
	want := map[string]any{
		"feature": "ab", "action": "cd", "id": got["id"], "timestamp": got["timestamp"],
		"privateMetadata": map[string]any{"error": "open: no\ufffd such\nfile", "s\ufffd": "a\ufffdb", "list": []any{"\ufffd"}, "raw": []any{"\ufffd"}},
		"metadata":        map[string]any{"k\ufffd": 1.0},
		"user":            map[string]any{"samsExternalId": "\ufffd"},
		"featureFlags":    map[string]any{"f\ufffd": "\ufffd"},
		"client":          map[string]any{"name": "a\nb"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if data := k.data[0]; bytes.ContainsAny(data, "\r\n") || !utf8.Valid(data) {
		t.Errorf("%q", data)
	}
}

// TestOptionsMerge requires that options of the same type merge, and that the caller's maps
// do not change.
func TestOptionsMerge(t *testing.T) {
	k := newTaken(t)
	metadata, private, flags := Metadata{"a": 1, "b": 1}, PrivateMetadata{"a": 1}, FeatureFlags{"a": "1"}
	ctx := ContextWith(t.Context(), metadata, private, flags, User{SAMSExternalID: "s", UserID: 1}, Client{Name: "web"}, Billing{Product: "p"}, Interaction{TraceID: "t"}, Marketing{URL: "u"})
	err := k.Record(ctx, "ab", "cd", Metadata{"b": 2, "c": 2}, Metadata{"d": 3}, PrivateMetadata{"b": 2}, FeatureFlags{"b": "2"},
		User{AnonymousUserID: "a", UserID: 2}, Client{Version: "1"}, Billing{Category: "c"}, Interaction{CountryCode: "IN"}, Marketing{CohortID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	got := k.last(t)
	want := map[string]any{
		"feature": "ab", "action": "cd", "id": got["id"], "timestamp": got["timestamp"],
		"metadata":          map[string]any{"a": 1.0, "b": 2.0, "c": 2.0, "d": 3.0},
		"privateMetadata":   map[string]any{"a": 1.0, "b": 2.0},
		"featureFlags":      map[string]any{"a": "1", "b": "2"},
		"user":              map[string]any{"samsExternalId": "s", "anonymousUserId": "a", "userId": 2.0},
		"client":            map[string]any{"name": "web", "version": "1"},
		"billingMetadata":   map[string]any{"product": "p", "category": "c"},
		"interaction":       map[string]any{"traceId": "t", "countryCode": "IN"},
		"marketingTracking": map[string]any{"url": "u", "cohortId": "c"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(metadata) != 2 || metadata["b"] != 1 || len(private) != 1 || len(flags) != 1 {
		t.Errorf("the caller's maps were changed: %v %v %v", metadata, private, flags)
	}
}

func TestNumbersAreConverted(t *testing.T) {
	type duration int64
	for got, want := range map[float64]float64{
		Number(1): 1, Number(uint8(2)): 2, Number(float32(0.5)): 0.5, Number(duration(3)): 3, Number(time.Duration(4)): 4, Number(uint64(1<<53 + 1)): 1 << 53,
	} {
		if got != want {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// TestHookSeesAllOptions requires that the hook sees the merged options, and that it
// changes the event but not the caller's maps.
func TestHookSeesAllOptions(t *testing.T) {
	k := newTaken(t)
	private, metadata := PrivateMetadata{"email": "a@b.test", "n": 1}, Metadata{"n": 1}
	k.validator.process = func(ctx context.Context, e *Event) {
		if e.Feature != "ab" || e.Action != "cd" || e.User.SAMSExternalID != "s" || ctx != t.Context() {
			t.Errorf("%+v", e)
		}
		delete(e.PrivateMetadata, "email")
		e.Metadata["region"] = 2
		e.Client.Name = "hook"
		e.FeatureFlags = FeatureFlags{"x": "y"}
	}
	if err := k.Record(t.Context(), "ab", "cd", private, metadata, User{SAMSExternalID: "s"}); err != nil {
		t.Fatal(err)
	}
	got := k.last(t)
	want := map[string]any{
		"feature": "ab", "action": "cd", "id": got["id"], "timestamp": got["timestamp"],
		"privateMetadata": map[string]any{"n": 1.0}, "metadata": map[string]any{"n": 1.0, "region": 2.0},
		"user": map[string]any{"samsExternalId": "s"}, "client": map[string]any{"name": "hook"}, "featureFlags": map[string]any{"x": "y"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(private) != 2 || len(metadata) != 1 {
		t.Errorf("the caller's maps were changed: %v %v", private, metadata)
	}
	k.validator.process = func(context.Context, *Event) { panic("the secret") }
	err := k.Record(t.Context(), "ab", "cd")
	if err == nil || !strings.Contains(err.Error(), "Config.Process panicked") || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

func TestDebugPrintsEvents(t *testing.T) {
	var out bytes.Buffer
	r, err := NewDebug(&out, Config{Service: Service{ID: "sams"}, Process: func(_ context.Context, e *Event) { e.Client.Name = "hook" }})
	if err != nil {
		t.Fatal(err)
	}
	r.RecordBestEffort(t.Context(), "ab", "cd", PrivateMetadata{"x": "\u009b31m"})
	r.RecordBestEffort(t.Context(), "Ab", "cd")
	r.RecordBestEffort(t.Context(), "ab", "cd", PrivateMetadata{"x": fails{}})
	if err := errors.Join(r.Flush(t.Context()), r.Close(t.Context())); err != nil {
		t.Error(err)
	}
	r.RecordBestEffort(t.Context(), "ab", "cd")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for i, want := range []string{
		`telemetry: recorded {"feature":"ab","action":"cd",`, `telemetry: recorder: event "Ab", "cd": invalid_event: feature`,
		`"metadata":{"telemetry.error":1}`, `one of type recorder.fails is none`, ErrClosed.Error(),
	} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("line %d: want %s in %q", i, want, lines)
		}
	}
	if len(lines) != 5 || !strings.Contains(lines[0], `"hook"`) || strings.Contains(lines[0], "\u009b") {
		t.Errorf("%q", lines)
	}
	if got := r.Stats(); got.Published != 2 || got.Invalid != 1 || got.Stripped != 1 || got.Dropped != 1 {
		t.Errorf("%+v", got)
	}
	if _, err := NewDebug(&out, Config{}); err == nil {
		t.Error("no error")
	}
}

// TestNeverPanics records with arguments that could cause a panic.
func TestNeverPanics(t *testing.T) {
	closed := newTaken(t)
	if err := closed.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var none *Recorder
	for _, r := range []*Recorder{none, NewNoop(), {}, closed.Recorder, newTaken(t).Recorder} {
		//nolint:staticcheck // A nil context is what is tested.
		if err := r.Record(nil, "ab", "cd", nil, Metadata(nil), PrivateMetadata(nil), FeatureFlags(nil), User{}); err != nil && r != closed.Recorder {
			t.Error(err)
		}
		_ = r.Stats()
		//nolint:staticcheck // A nil context is what is tested.
		if err := errors.Join(r.Flush(nil), r.Close(nil), r.Close(t.Context())); err != nil {
			t.Error(err)
		}
	}
	//nolint:staticcheck // A nil context is what is tested.
	if ctx := ContextWith(nil, User{SAMSExternalID: "s"}); len(contextOptions(ctx)) != 1 {
		t.Error("ContextWith(nil)")
	}
	if err := closed.Record(t.Context(), "ab", "cd"); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if got := closed.Stats(); got.Dropped != 2 {
		t.Errorf("%+v", got)
	}
}

func TestNamesAreChecked(t *testing.T) {
	for name, good := range map[string]bool{
		"cody.hover": true, "ab": true, "a-B.c": true, strings.Repeat("a", 64): true,
		"": false, "a": false, "Cody": false, "cody_hover": false, "v2": false, "cody hover": false, strings.Repeat("a", 65): false, "a\xff": false,
	} {
		if err := Feature(name).Check(); (err == nil) != good {
			t.Errorf("feature %q: %v", name, err)
		}
		if err := Action(name).Check(); (err == nil) != good {
			t.Errorf("action %q: %v", name, err)
		}
	}
}

func TestBadConfigIsRefused(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want []string
	}{
		{Config{}, []string{"expected a Topic or a Publisher", "service_id"}},
		{Config{Topic: "telemetry-events", Service: Service{ID: "sams"}}, []string{"expected projects/PROJECT/topics/TOPIC, got telemetry-events"}},
		{Config{Topic: "projects/p/topics/t", Service: Service{ID: "Sams"}}, []string{"^[a-z0-9-]+$"}},
		{Config{Topic: "projects/p/topics/t", Service: Service{ID: "sams", Version: strings.Repeat("x", 1025)}}, []string{"Service.Version"}},
		{Config{Topic: "projects/p/topics/t", Service: Service{ID: "sams", Environment: "\xff"}}, []string{"Service.Environment"}},
		{Config{Topic: "projects/p/topics/t", Service: Service{ID: "sams"}, BlockFor: -1}, []string{"must not be negative"}},
	} {
		r, err := New(t.Context(), c.cfg)
		if err == nil || r != nil {
			t.Errorf("%+v: %v", c.cfg, err)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		// The nil recorder works.
		if err := r.Record(t.Context(), "ab", "cd"); err != nil {
			t.Error(err)
		}
	}
}

// TestRecordAllocations guards the cost of a typical event with options: the target is at
// most 10 allocations.
func TestRecordAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates")
	}
	ctx := tracedContext()
	r := newFast(t, Config{})
	// The count includes the allocations of the pipeline's goroutine.
	got := testing.AllocsPerRun(2000, func() {
		if err := typical(ctx, r); err != nil && !errors.Is(err, ErrDropped) {
			t.Error(err)
		}
	})
	if got > 10 {
		t.Errorf("%v allocations", got)
	}
	t.Logf("%v allocations", got)
}
