package main

import (
	"fmt"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// sampleCommand returns a command that publishes an event by hand. The services list accepts
// the event: its feature is guessed from the globs of the first service for which that is
// possible. own is set if the list is not the embedded one. In another terminal
// `worker publish` knows only the embedded list, so that the command then skips its check.
func sampleCommand(services *policy.Set, own bool) string {
	id, environment, feature := "sams", "", "sams.user"
	if own {
		for _, s := range services.Services() {
			if guess, ok := sampleFeature(s); ok {
				id, feature = s.ID, guess
				if len(s.Environments) > 0 {
					environment = fmt.Sprintf(`,"service_environment":%q`, s.Environments[0])
				}
				break
			}
		}
	}
	command := fmt.Sprintf(`echo '{"attributes":{"service_id":%q%s},"data":{"feature":%q,"action":"created"}}' | worker publish`, id, environment, feature)
	if own {
		command += " --as-is"
	}
	return command
}

// sampleFeature returns a feature that a service may publish; ok is false if none is known.
func sampleFeature(s *policy.Service) (feature string, ok bool) {
	candidates := []string{"example.hello"}
	for _, glob := range s.Features {
		candidates = append(candidates, strings.ReplaceAll(glob, "*", "hello"))
	}
	for _, feature := range candidates {
		if s.AllowsFeature(feature) && !s.RejectUnlisted {
			return feature, true
		}
	}
	return "", false
}
