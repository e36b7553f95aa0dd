package recordertest

import (
	"os"

	"github.com/sourcegraph/telemetry-relay/internal/catalogue"
)

// CheckCatalogue fails the test for each recorded event that differs from the service's
// telemetry.yaml: by a feature and action, a key of the metadata or a field of the private
// metadata that is not listed. The recorder must be that of the catalogue's service; see
// WithService.
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
	for _, e := range r.Events() {
		if err := c.Check(e.Attributes["service_id"], e.Data); err != nil {
			r.tb.Errorf("%s: %v", file, err)
		}
	}
}
