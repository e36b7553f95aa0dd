package config

import (
	"bufio"
	"os"
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
)

// The default must let in what the demo publishes.
func TestDefaultServices(t *testing.T) {
	services, err := servicesyaml.Parse(defaultServices)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := services.Lookup("not-listed"); ok {
		t.Error("unknown services are allowed")
	}
	for _, s := range services.Services() {
		if s.Owner == "" {
			t.Errorf("service %s has no owner", s.ID)
		}
	}
	file, err := os.Open("../internal/devstack/sample/events.ndjson")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	samples := bufio.NewScanner(file)
	samples.Buffer(nil, 16<<20)
	n := 0
	for samples.Scan() {
		m, err := ndjson.Parse(samples.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if id := m.Attributes["service_id"]; !services.Listed(id) {
			t.Errorf("sample %d is of service %q, which is not listed", n, id)
		}
		n++
	}
	if err := samples.Err(); err != nil || n == 0 {
		t.Errorf("%d samples, %v", n, err)
	}
}
