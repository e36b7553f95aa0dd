package recorder

import (
	"maps"
	"time"
)

// Event is an event before it is checked and sent, as Config.Process sees it: what
// the options of the context and of Record say together.
type Event struct {
	Feature Feature
	Action  Action
	// ID is empty for a new one, Timestamp zero for now.
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

// maps says which of an event's maps are the draft's own and may be changed. Those
// of the options are their caller's.
type ownMaps struct{ metadata, private, flags bool }

// merge adds the entries of an option to those of earlier ones. Later ones count.
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

// ownAll makes all maps the draft's own, so that Config.Process may change them.
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
