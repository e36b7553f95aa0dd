package policy

import (
	"maps"
	"slices"
)

// EventName is a feature with an action.
type EventName struct{ Feature, Action string }

// Fields are the keys that one event may carry. The values of both maps are true.
type Fields struct {
	// Metadata has the keys of the metadata.
	Metadata map[string]bool
	// Private has the fields at the top level of the private metadata.
	Private map[string]bool
}

// Catalogue has the events that a service has declared. It is immutable.
type Catalogue map[EventName]Fields

// ErrorKey is a key of the metadata that every event may carry: the recorder adds it
// to an event whose private metadata it had to leave out.
const ErrorKey = "telemetry.error"

// Event returns the fields of the event with this feature and action, and whether the
// catalogue lists it. An event that is not listed has no fields.
func (c Catalogue) Event(feature, action []byte) (Fields, bool) {
	fields, ok := c[EventName{string(feature), string(action)}] // the compiler makes no strings for the look-up
	return fields, ok
}

// Names lists keys in alphabetical order.
func Names(keys map[string]bool) []string { return slices.Sorted(maps.Keys(keys)) }

// RestrictsPrivate reports whether the catalogue decides which private fields of an
// event the worker relays.
func (s *Service) RestrictsPrivate() bool {
	return s.Catalogue != nil && s.PrivateMetadata != AllowPrivate
}

// allowed lists what the catalogue lets through, in the canonical form for a digest:
// what is not looked at is left out.
func (s *Service) allowed() [][]string {
	var all [][]string
	for name, fields := range s.Catalogue {
		if s.RejectUnlisted {
			all = append(all, []string{name.Feature, name.Action})
			for key := range fields.Metadata {
				all = append(all, []string{name.Feature, name.Action, "metadata", key})
			}
		}
		if s.RestrictsPrivate() {
			for key := range fields.Private {
				all = append(all, []string{name.Feature, name.Action, "privateMetadata", key})
			}
		}
	}
	slices.SortFunc(all, slices.Compare[[]string])
	return all
}
