// Package catalogue reads telemetry.yaml, in which a service lists its events, and
// makes rules of it, by which the decoder judges events. It imports little, because
// services' own tests bring it along with recorder/recordertest.
package catalogue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// Catalogue is the events of one service.
type Catalogue struct {
	// Service is the service's id at MSP, Owner who answers for its events.
	Service string  `yaml:"service"`
	Owner   string  `yaml:"owner"`
	Events  []Event `yaml:"events"`
}

// Event is what a feature and an action are recorded with.
type Event struct {
	Feature     string `yaml:"feature"`
	Action      string `yaml:"action"`
	Description string `yaml:"description"`
	// Owner is another one than the catalogue's, if it is given.
	Owner string `yaml:"owner"`
	// Metadata says what each key means.
	Metadata map[string]string `yaml:"metadata"`
	// PrivateMetadata says what each field at the top of the private metadata means.
	PrivateMetadata map[string]string `yaml:"privateMetadata"`
}

var (
	serviceID = regexp.MustCompile(`^[a-z0-9-]+$`)
	name      = regexp.MustCompile(`^[a-z][a-zA-Z.-]{1,63}$`)
	goType    = regexp.MustCompile(` (in type|into) \S+`)
)

// Parse reads telemetry.yaml strictly. The error lists all that is wrong, a line
// each.
func Parse(source []byte) (*Catalogue, error) {
	c := &Catalogue{}
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	decoder.KnownFields(true)
	switch err := decoder.Decode(c); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("expected service, owner and events, and found nothing")
	case err != nil:
		// The library's errors name Go types, which say nothing to the file's author.
		return nil, errors.New(goType.ReplaceAllString(strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "), ""))
	}
	if err := decoder.Decode(new(Catalogue)); !errors.Is(err, io.EOF) {
		return nil, errors.New("expected one YAML document")
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !serviceID.MatchString(c.Service) {
		fault("service: expected an id of lower-case letters, digits and hyphens, got %.80q", c.Service)
	}
	if c.Owner == "" {
		fault("owner: missing")
	}
	if len(c.Events) == 0 {
		fault("events: expected at least one")
	}
	errs = append(errs, Faults(c.Events)...)
	for i, e := range c.Events {
		if e.Description == "" {
			fault("%s: description: missing", place(i, e))
		}
		for _, m := range []struct {
			what   string
			fields map[string]string
		}{{"metadata", e.Metadata}, {"privateMetadata", e.PrivateMetadata}} {
			for _, key := range slices.Sorted(maps.Keys(m.fields)) {
				if m.fields[key] == "" {
					fault("%s: %s.%s: expected what it means", place(i, e), m.what, key)
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// Faults says which names are not valid, or are listed twice. It asks for no meanings,
// which the list of another file has no use for.
func Faults(events []Event) []error {
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	seen := map[policy.EventName]bool{}
	for i, e := range events {
		for _, n := range []struct{ what, name string }{{"feature", e.Feature}, {"action", e.Action}} {
			if !name.MatchString(n.name) {
				fault("%s: %s: expected a lower-case letter, then letters, hyphens and full stops, 2 to 64 in all", place(i, e), n.what)
			}
		}
		named := policy.EventName{Feature: e.Feature, Action: e.Action}
		if seen[named] {
			fault("%s: is listed twice", place(i, e))
		}
		seen[named] = true
	}
	return errs
}

// place names an event in a fault.
func place(i int, e Event) string {
	return fmt.Sprintf("events[%d] %.80q %.80q", i, e.Feature, e.Action)
}

// Rules are the events as the worker judges by them.
func Rules(events []Event) policy.Catalogue {
	rules := make(policy.Catalogue, len(events))
	for _, e := range events {
		rules[policy.EventName{Feature: e.Feature, Action: e.Action}] = policy.Fields{Metadata: keys(e.Metadata), Private: keys(e.PrivateMetadata)}
	}
	return rules
}

func keys(meanings map[string]string) map[string]bool {
	set := make(map[string]bool, len(meanings))
	for key := range meanings {
		set[key] = true
	}
	return set
}

// CheckService says that an event is not of the catalogue's service, nil if it is.
func (c *Catalogue) CheckService(id string) error {
	if id != c.Service {
		return fmt.Errorf("the catalogue is that of service %s, the event that of %.80q", c.Service, id)
	}
	return nil
}

// Services is a services list of the catalogue's service alone, which rejects
// whatever the catalogue does not list. A decoder with it judges an event as a worker
// does whose list refers to this catalogue.
func (c *Catalogue) Services() (*policy.Set, error) {
	return policy.NewSet([]*policy.Service{{
		ID: c.Service, PrivateMetadata: policy.RejectPrivate, Catalogue: Rules(c.Events), RejectUnlisted: true,
	}}, false)
}
