package recordertest

import (
	"os"

	"github.com/sourcegraph/telemetry-relay/internal/catalogue"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// CheckCatalogue fails the test for each recorded event that differs from the service's
// telemetry.yaml: by a feature and action, a key of the metadata or a field of the private
// metadata that is not listed. A relay judges the same way whose services.yaml refers to
// the file with privateMetadata: reject and unlisted: reject. The recorder must be that of
// the catalogue's service; see WithService.
func (r *Recorder) CheckCatalogue(file string) {
	r.tb.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		r.tb.Fatalf("recordertest: %v", err)
	}
	c, err := catalogue.Parse(source)
	if err != nil {
		r.tb.Fatalf("recordertest: %s: %v", file, err)
	}
	services, err := c.Services()
	if err != nil {
		r.tb.Fatalf("recordertest: %s: %v", file, err)
	}
	decoder := event.NewDecoder(services, "test")
	for _, e := range r.Events() {
		if err := c.CheckService(e.Attributes[event.AttrServiceID]); err != nil {
			r.tb.Errorf("%s: %v", file, err)
		} else if _, rejection := decoder.Decode(event.Message{Data: e.Data, Attributes: e.Attributes}); rejection != nil {
			r.tb.Errorf("%s: %s %s: %s", file, e.Feature, e.Action, rejection.Detail)
		}
	}
}
