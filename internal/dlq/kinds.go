package dlq

import (
	"fmt"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// Kind is a Group without its environment.
type Kind struct{ Reason, Service, Feature, Action, Detail string }

// KindOf returns the kind of a message.
func KindOf(s *Stored) Kind {
	g := GroupOf(s)
	return Kind{g.Reason, g.Service, g.Feature, g.Action, g.Detail}
}

// String returns a text without line breaks and controls.
func (k Kind) String() string {
	return terminal.Clean(fmt.Sprintf("%s of %s, %s/%s: %s", k.Reason, k.Service, k.Feature, k.Action, k.Detail))
}

// Kinds is a set of kinds. The zero value is empty.
type Kinds struct{ all map[Kind]struct{} }

// Add adds the kind of a message, unless there are too many already.
func (k *Kinds) Add(s *Stored) {
	if k.all == nil {
		k.all = map[Kind]struct{}{}
	}
	if len(k.all) < maxGroups {
		k.all[KindOf(s)] = struct{}{}
	}
}

// Has reports whether a message is of one of the kinds.
func (k *Kinds) Has(s *Stored) bool {
	_, ok := k.all[KindOf(s)]
	return ok
}
