package trial

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
)

func stored(data string, replays int) *dlq.Stored {
	return &dlq.Stored{
		ID: "q1", OriginalID: "m1", Replays: replays, Reason: event.InvalidEvent, Detail: "user.userId: expected an integer, got a string",
		Original: ndjson.Message{Data: []byte(data), Attributes: map[string]string{"service_id": "sams"}},
	}
}

func check(t *testing.T) func(event.Message) *event.Rejection {
	t.Helper()
	services, err := servicesyaml.Parse([]byte("services: [{id: sams}]"))
	if err != nil {
		t.Fatal(err)
	}
	decoder := event.NewDecoder(services, "dev")
	return func(m event.Message) *event.Rejection {
		_, rejection := decoder.Decode(m)
		return rejection
	}
}

func TestTrialCountsOutcomesAndCauses(t *testing.T) {
	fix, err := dlq.CompileFix(".user.userId |= tonumber | del(.privateMetadata)")
	if err != nil {
		t.Fatal(err)
	}
	trial := New(fix, check(t), 3)
	for i, c := range []struct {
		stored *dlq.Stored
		after  string
		why    string
	}{
		{stored(`{"feature":"sams.user","action":"created","user":{"userId":"7"},"privateMetadata":{"a":1}}`, 0), `{"action":"created","feature":"sams.user","user":{"userId":7}}`, ""},
		{stored(`{"feature":"sams.user","action":"created","user":{"userId":"8"}}`, 2), `{"action":"created","feature":"sams.user","user":{"userId":8}}`, ""},
		{stored(`{"feature":"sams.user","action":"created","user":{"userId":"S3CRET"}}`, 0), "", "tonumber cannot be applied"},
		{stored(`{"feature":"sams.user","user":{"userId":"7"}}`, 0), "", "action: missing"},
		{stored(`{"feature":"sams.user","user":{"userId":"7"}}`, 3), "", "replayed 3 times"},
	} {
		outcome, err := trial.Try(t.Context(), c.stored)
		if err != nil || string(outcome.After) != c.after || !strings.Contains(outcome.Why, c.why) || (c.why == "") != (outcome.Why == "") || strings.Contains(outcome.Why, "S3CRET") {
			t.Errorf("event %d: %s, %q, %v", i, outcome.After, outcome.Why, err)
		}
	}
	if trial.Tried != 5 || trial.Passed != 2 || trial.Failed != 2 || trial.TooOften != 1 {
		t.Errorf("%+v", trial)
	}
	causes := trial.Causes()
	if len(causes) != 2 || causes[0].Reason != "" || causes[1].Reason != event.InvalidEvent || causes[1].Count != 1 || causes[1].Sample != "m1" {
		t.Errorf("causes %+v", causes)
	}
	want := []dlq.ChangeCount{
		{FieldChange: dlq.FieldChange{Field: "user.userId", Change: "string → number"}, Count: 2},
		{FieldChange: dlq.FieldChange{Field: "privateMetadata", Change: "object removed", Loses: true}, Count: 1},
	}
	if diff := cmp.Diff(want, trial.Changes.Counts()); diff != "" {
		t.Error(diff)
	}
}

func TestTrialWithoutFixKeepsTheData(t *testing.T) {
	trial := New(nil, check(t), 3)
	const data = `{"feature":"sams.user","action":"created"}`
	if outcome, err := trial.Try(t.Context(), stored(data, 0)); err != nil || string(outcome.After) != data || trial.Passed != 1 {
		t.Errorf("%s, %v", outcome.After, err)
	}
}
