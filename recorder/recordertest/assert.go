package recordertest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/sourcegraph/telemetry-relay/recorder"
	"github.com/sourcegraph/telemetry-relay/recorder/internal/hook"
)

// AssertOnce fails the test unless exactly one event of this feature and action has the
// options' values. The event may have further keys of metadata and fields.
func (r *Recorder) AssertOnce(feature recorder.Feature, action recorder.Action, with ...recorder.Option) {
	r.tb.Helper()
	r.AssertTimes(1, feature, action, with...)
}

// AssertNever fails the test if any event of this feature and action has the options'
// values.
func (r *Recorder) AssertNever(feature recorder.Feature, action recorder.Action, with ...recorder.Option) {
	r.tb.Helper()
	r.AssertTimes(0, feature, action, with...)
}

// AssertTimes is AssertOnce for any number of events.
func (r *Recorder) AssertTimes(times int, feature recorder.Feature, action recorder.Action, with ...recorder.Option) {
	r.tb.Helper()
	want := r.expected(feature, action, with)
	if want == nil {
		return
	}
	got := 0
	var others []string
	for _, e := range r.Events() {
		var have map[string]any
		if err := json.Unmarshal(e.Data, &have); err != nil {
			r.tb.Errorf("recordertest: %v", err)
			return
		}
		differences := missing("", want, have)
		if len(differences) == 0 {
			got++
		}
		text := "  " + describe(have)
		if e.Feature == feature && e.Action == action && len(differences) > 0 {
			text += "\n    but " + strings.Join(differences, "\n    and ")
		}
		others = append(others, text)
	}
	if got == times {
		return
	}
	was := "nothing was recorded"
	if len(others) > 0 {
		was = "recorded were:\n" + strings.Join(others, "\n")
	}
	r.tb.Errorf("want recorded %s %s, got %s; %s", describe(want), count(times), count(got), was)
}

// expected encodes the wanted event as the recorder does, without the values that the
// recorder fills in.
func (r *Recorder) expected(feature recorder.Feature, action recorder.Action, with []recorder.Option) map[string]any {
	r.tb.Helper()
	var want map[string]any
	scratch := newTap(r.tb, recorder.Service{ID: "test"}, hook.Tap{Put: func(data []byte, _ map[string]string) error {
		return json.Unmarshal(data, &want)
	}})
	if err := scratch.Record(context.Background(), recorder.DynamicFeature(string(feature)), recorder.DynamicAction(string(action)), with...); err != nil {
		r.tb.Errorf("an event as wanted can never be recorded: %v", err)
		return nil
	}
	given := map[string]bool{}
	for _, opt := range with {
		switch opt.(type) {
		case recorder.ID:
			given["id"] = true
		case recorder.Timestamp:
			given["timestamp"] = true
		}
	}
	for _, name := range []string{"id", "timestamp"} {
		if !given[name] {
			delete(want, name)
		}
	}
	return want
}

// missing lists the values of want that are not in have.
func missing(path string, want, have map[string]any) []string {
	var differences []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		wanted, field := want[name], strings.TrimPrefix(path+"."+name, ".")
		got, ok := have[name]
		wantedObject, isObject := wanted.(map[string]any)
		gotObject, both := got.(map[string]any)
		switch {
		case !ok:
			differences = append(differences, fmt.Sprintf("%s: want %s, and there is none", field, compact(wanted)))
		case isObject && both:
			differences = append(differences, missing(field, wantedObject, gotObject)...)
		case !reflect.DeepEqual(wanted, got):
			differences = append(differences, fmt.Sprintf("%s: want %s, got %s", field, compact(wanted), compact(got)))
		}
	}
	return differences
}

// describe returns feature/action and all other values on one line.
func describe(e map[string]any) string {
	text := fmt.Sprintf("%v/%v", e["feature"], e["action"])
	var more []string
	for _, name := range slices.Sorted(maps.Keys(e)) {
		switch name {
		case "feature", "action", "id", "timestamp":
		case "metadata":
			numbers, _ := e[name].(map[string]any)
			for _, key := range slices.Sorted(maps.Keys(numbers)) {
				more = append(more, key+"="+compact(numbers[key]))
			}
		default:
			more = append(more, name+" "+compact(e[name]))
		}
	}
	if len(more) > 0 {
		text += " with " + strings.Join(more, ", ")
	}
	return text
}

func compact(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(text)
}

func count(n int) string {
	switch n {
	case 0:
		return "never"
	case 1:
		return "once"
	default:
		return fmt.Sprintf("%d times", n)
	}
}
