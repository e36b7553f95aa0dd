// Package catalogue reads telemetry.yaml, in which a service lists its events, and
// finds out where an event is not as the list says. It imports little, because
// services' own tests bring it along with recorder/recordertest.
package catalogue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Catalogue is the events of one service.
type Catalogue struct {
	// Service is the service's id at MSP, Owner who answers for its events.
	Service string  `yaml:"service"`
	Owner   string  `yaml:"owner"`
	Events  []Event `yaml:"events"`

	byName map[[2]string]*Event
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
	c := &Catalogue{byName: map[[2]string]*Event{}}
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	decoder.KnownFields(true)
	switch err := decoder.Decode(c); {
	case errors.Is(err, io.EOF):
		return nil, errors.New("expected service, owner and events, and found nothing")
	case err != nil:
		// The library's errors name Go types, which say nothing to the file's author.
		return nil, errors.New(goType.ReplaceAllString(strings.Join(strings.Fields(strings.TrimPrefix(err.Error(), "yaml: ")), " "), ""))
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
	for i := range c.Events {
		e := &c.Events[i]
		where := fmt.Sprintf("events[%d] %.80q %.80q", i, e.Feature, e.Action)
		for _, n := range []struct{ what, name string }{{"feature", e.Feature}, {"action", e.Action}} {
			if !name.MatchString(n.name) {
				fault("%s: %s: expected a lower-case letter, then letters, hyphens and full stops, 2 to 64 in all", where, n.what)
			}
		}
		if c.byName[[2]string{e.Feature, e.Action}] != nil {
			fault("%s: is listed twice", where)
		}
		c.byName[[2]string{e.Feature, e.Action}] = e
		if e.Description == "" {
			fault("%s: description: missing", where)
		}
		for _, m := range []struct {
			what   string
			fields map[string]string
		}{{"metadata", e.Metadata}, {"privateMetadata", e.PrivateMetadata}} {
			for _, key := range slices.Sorted(maps.Keys(m.fields)) {
				if m.fields[key] == "" {
					fault("%s: %s.%s: expected what it means", where, m.what, key)
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return c, nil
}

// errorKey is what the recorder adds to the metadata of an event whose private
// metadata it had to leave out.
const errorKey = "telemetry.error"

// Check says where a valid event of a service is not as the catalogue says, nil if
// it is. A field of the private metadata that is not listed is counted and not
// named, because a key may be private, too.
func (c *Catalogue) Check(service string, data []byte) error {
	if service != c.Service {
		return fmt.Errorf("the catalogue is that of service %s, the event that of %.80q", c.Service, service)
	}
	var e struct {
		Feature         string             `json:"feature"`
		Action          string             `json:"action"`
		Metadata        map[string]float64 `json:"metadata"`
		PrivateMetadata map[string]any     `json:"privateMetadata"`
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return errors.New("the event is not valid")
	}
	listed := c.byName[[2]string{e.Feature, e.Action}]
	if listed == nil {
		return fmt.Errorf("%.80q %.80q is not in the catalogue", e.Feature, e.Action)
	}
	for _, key := range slices.Sorted(maps.Keys(e.Metadata)) {
		if _, ok := listed.Metadata[key]; !ok && key != errorKey {
			return fmt.Errorf("%s %s: metadata.%.80s is not in the catalogue", e.Feature, e.Action, key)
		}
	}
	unlisted := 0
	for key := range e.PrivateMetadata {
		if _, ok := listed.PrivateMetadata[key]; !ok {
			unlisted++
		}
	}
	if unlisted > 0 {
		return fmt.Errorf("%s %s: privateMetadata: %d of %d fields are not in the catalogue", e.Feature, e.Action, unlisted, len(e.PrivateMetadata))
	}
	return nil
}
