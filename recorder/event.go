package recorder

import (
	"maps"
	"time"
)

// Event is an event before it is checked and sent, with all options of the context and of
// Record. Config.Process gets it.
type Event struct {
	Feature Feature
	Action  Action
	// An empty ID means a new one, and a zero Timestamp means now.
	ID        ID
	Timestamp time.Time

	Metadata        Metadata
	MetadataVersion MetadataVersion
	PrivateMetadata PrivateMetadata
	User            User
	Client          Client
	Interaction     Interaction
	Billing         Billing
	FeatureFlags    FeatureFlags
	Marketing       Marketing
}

// ownMaps says which maps of an event belong to the draft, which may change them. Maps of
// options belong to the caller.
type ownMaps struct{ metadata, private, flags bool }

// merge adds the entries of an option to those of earlier ones, and replaces those with the
// same key.
func merge[M ~map[K]V, K comparable, V any](have *M, own *bool, more M) {
	switch {
	case more == nil:
	case *have == nil:
		*have = more
	default:
		if !*own {
			*have, *own = maps.Clone(*have), true
		}
		maps.Copy(*have, more)
	}
}

// ownAll gives the draft its own copy of all maps, so that Config.Process may change them.
func (d *draft) ownAll() {
	if !d.own.metadata {
		d.Metadata, d.own.metadata = maps.Clone(d.Metadata), true
	}
	if !d.own.private {
		d.PrivateMetadata, d.own.private = maps.Clone(d.PrivateMetadata), true
	}
	if !d.own.flags {
		d.FeatureFlags, d.own.flags = maps.Clone(d.FeatureFlags), true
	}
}
