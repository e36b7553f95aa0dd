package preflight

import "github.com/sourcegraph/telemetry-relay/internal/provision"

// Finding is what `worker check` has found about one thing.
type Finding struct {
	// Check names what was looked at, such as "subscription retention".
	Check  string            `json:"check"`
	Status provision.Verdict `json:"status"`
	// Resource is the full name, or the address, of what it is about; may be empty.
	Resource string `json:"resource,omitempty"`
	// Detail says what was found.
	Detail string `json:"detail"`
	// Consequence says what comes of it, when it is not well.
	Consequence string `json:"consequence,omitempty"`
	// Do says what to do about it.
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
