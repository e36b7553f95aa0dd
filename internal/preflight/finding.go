package preflight

import "github.com/sourcegraph/telemetry-relay/internal/provision"

// Finding is the result of one check of `worker check`.
type Finding struct {
	// Check names the subject, such as "subscription retention".
	Check  string            `json:"check"`
	Status provision.Verdict `json:"status"`
	// Resource is the full name or the address of the subject; may be empty.
	Resource string `json:"resource,omitempty"`
	// Detail is the observation.
	Detail string `json:"detail"`
	// Consequence is the effect of a warning or a failure.
	Consequence string `json:"consequence,omitempty"`
	// Do is advice.
	Do string `json:"do,omitempty"`
}

func ok(check, resource, detail string) Finding {
	return Finding{Check: check, Status: provision.OK, Resource: resource, Detail: detail}
}

func skipped(check, resource, why string) Finding {
	return Finding{Check: check, Status: provision.Skipped, Resource: resource, Detail: why}
}

func failure(check, resource, detail, consequence, do string) Finding {
	return Finding{Check: check, Status: provision.Failure, Resource: resource, Detail: detail, Consequence: consequence, Do: do}
}

func warning(check, resource, detail, consequence, do string) Finding {
	return Finding{Check: check, Status: provision.Warning, Resource: resource, Detail: detail, Consequence: consequence, Do: do}
}
