package sample

import (
	"os"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
)

// TestRejects: the worker rejects every one, and they are of few faults.
func TestRejects(t *testing.T) {
	text, err := os.ReadFile("../../../config/services.yaml")
	if err != nil {
		t.Fatal(err)
	}
	services, err := servicesyaml.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	rejects, err := Rejects()
	if err != nil {
		t.Fatal(err)
	}
	decoder := event.NewDecoder(services, "local")
	reasons := map[event.Reason]int{}
	for i, r := range rejects {
		_, rejection := decoder.Decode(event.Message{ID: "1", Data: r.Data, Attributes: r.Attributes})
		if rejection == nil {
			t.Fatalf("event %d is valid: %s", i, r.Data)
		}
		reasons[rejection.Reason]++
		if r.Ago <= 0 {
			t.Errorf("event %d is of the future", i)
		}
	}
	if reasons[event.InvalidEvent] != 140+36+22 || reasons[event.MalformedPayload] != 9 || reasons[event.UnknownService] != 12 {
		t.Errorf("%v", reasons)
	}
}
