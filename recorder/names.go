package recorder

import (
	"context"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// Feature names what was used, such as "cody.hover": a lower-case letter, then
// letters, hyphens and full stops, 2 to 64 bytes in all. Declare features as
// constants, never build them from data:
//
//	const featureHover recorder.Feature = "cody.hover"
type Feature string

// Action names what happened to the feature, such as "shown", by the same rule.
type Action string

// Check says what is wrong with the name, by the relay's own rule; nil if it is
// good.
func (f Feature) Check() error { return checkNames(f, "checked") }

// Check says what is wrong with the name, by the relay's own rule; nil if it is
// good.
func (a Action) Check() error { return checkNames("checked", a) }

func checkNames(f Feature, a Action) error {
	v, err := newValidator(Service{ID: "checked"})
	if err != nil {
		return err
	}
	_, err = v.encode(context.Background(), f, a, nil)
	return err
}

// Service says who records.
type Service struct {
	// ID is the service's id at MSP: lower-case letters, digits and hyphens.
	// Required; services.yaml of the relay must list it.
	ID string
	// Environment is the id of the service's environment, such as "prod". Empty
	// means that of the relay that takes the event.
	Environment string
	// Version of the service, such as "1.2.3"; may be empty.
	Version string
}

// attributes are those of every message.
func (s Service) attributes() map[string]string {
	attributes := map[string]string{
		event.AttrSchemaVersion: event.SchemaVersion,
		event.AttrServiceID:     s.ID,
	}
	if s.Environment != "" {
		attributes[event.AttrServiceEnvironment] = s.Environment
	}
	if s.Version != "" {
		attributes[event.AttrServiceVersion] = s.Version
	}
	return attributes
}
