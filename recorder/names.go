package recorder

import (
	"context"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// Record takes the names of features and actions, and Metadata its keys, as constants of
// these types, which no other package can name. So a variable can neither be passed nor
// converted by accident: all names can be found in the code, and none is a person's data.
//
//	const featureHover = "cody.hover"
type (
	untypedConstFeature string
	untypedConstAction  string
	untypedConstKey     string
)

// DynamicFeature returns a feature that is not a constant. The caller is responsible for
// it: the name must come from a known list, never from a user.
func DynamicFeature(name string) untypedConstFeature { return untypedConstFeature(name) } //nolint:revive // That nobody can name the type is its purpose.

// DynamicAction is DynamicFeature for actions.
func DynamicAction(name string) untypedConstAction { return untypedConstAction(name) } //nolint:revive // See DynamicFeature.

// DynamicKey returns a key of Metadata that is not a constant. The caller is responsible
// for it: metadata leave the instance, and their keys must identify nobody.
func DynamicKey(name string) untypedConstKey { return untypedConstKey(name) } //nolint:revive // See DynamicFeature.

// Feature is the name of the feature that was used, such as "cody.hover": a character a to
// z, then a to z, A to Z, hyphens and full stops, 2 to 64 bytes in all. Declare features as
// constants without a type:
//
//	const featureHover = "cody.hover"
type Feature string

// Action is the name of what happened to the feature, such as "shown". It has the same
// form.
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
	_, _, err = v.encode(context.Background(), f, a, nil)
	return err
}

// Service is the service that records.
type Service struct {
	// ID is the service's id at MSP: lower-case letters, digits and hyphens.
	// Required; services.yaml of the relay must list it.
	ID string
	// Environment is the id of the service's environment, such as "prod". If it is empty,
	// the event belongs to the environment of the relay.
	Environment string
	// Version of the service, such as "1.2.3"; may be empty.
	Version string
}

// attributes returns the attributes of every message.
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
