package config

import (
	_ "embed" // for the default services.yaml
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
)

//go:embed services.yaml
var defaultServices []byte

func (c *Config) loadServices(faults *Faults) {
	if c.ServicesFile != "" && c.ServicesYAML != "" {
		faults.add("WORKER_SERVICES_FILE", "is set together with WORKER_SERVICES: expected one of them")
		return
	}
	services, variable, err := c.parseServices()
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			faults.add(variable, "%s", line)
		}
		return
	}
	c.Services = services
}

// parseServices returns the services list, and the variable that it depends on.
func (c *Config) parseServices() (services *policy.Set, variable string, err error) {
	switch {
	case c.ServicesFile != "":
		services, err = servicesyaml.ParseFile(c.ServicesFile)
		return services, "WORKER_SERVICES_FILE", err
	case c.ServicesYAML != "":
		services, err = servicesyaml.Parse([]byte(c.ServicesYAML))
	default:
		services, err = servicesyaml.Parse(defaultServices)
	}
	return services, "WORKER_SERVICES", err
}
