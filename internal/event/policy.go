package event

import (
	"fmt"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// violation says which rule of services.yaml forbids the event; "" if none does.
func (p *pass) violation(service *policy.Service, publisher Publisher) string {
	if !service.AllowsEnvironment(publisher.Environment) {
		return fmt.Sprintf("service %s may not publish for environment %s; services.yaml allows %s",
			quote(service.ID), describe(publisher.Environment), list(service.Environments))
	}
	if !service.AllowsFeature(string(p.feature)) {
		return fmt.Sprintf("feature: service %s may not publish %s; services.yaml allows %s",
			quote(service.ID), describe(p.feature), list(service.Features))
	}
	if service.Catalogue != nil {
		return newCatalogueRules(p, service).violation()
	}
	if p.isPrivate && service.PrivateMetadata == policy.RejectPrivate {
		return fmt.Sprintf("privateMetadata: services.yaml does not allow service %s any; expected none or an empty object",
			quote(service.ID))
	}
	return ""
}

// list quotes the values of a rule, but not more than shown.
func list(values []string) string {
	const shown = 8
	if len(values) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, v := range values {
		if i == shown {
			fmt.Fprintf(&b, " and %d more", len(values)-shown)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(v))
	}
	return b.String()
}
