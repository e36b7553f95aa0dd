package config

import (
	_ "embed" // for the default services.yaml
	"os"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
)

//go:embed services.yaml
var defaultServices []byte

func (c *Config) loadServices(faults *Faults) {
	source, variable := defaultServices, "WORKER_SERVICES"
	switch {
	case c.ServicesFile != "" && c.ServicesYAML != "":
		faults.add("WORKER_SERVICES_FILE", "is set together with WORKER_SERVICES: expected one of them")
		return
	case c.ServicesYAML != "":
		source = []byte(c.ServicesYAML)
	case c.ServicesFile != "":
		variable = "WORKER_SERVICES_FILE"
		content, err := os.ReadFile(c.ServicesFile)
		if err != nil {
			faults.add(variable, "expected a readable file: %v", err)
			return
		}
		source = content
	}
	services, err := servicesyaml.Parse(source)
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			faults.add(variable, "%s", line)
		}
		return
	}
	c.Services = services
}
