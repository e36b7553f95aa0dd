package servicesyaml

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/internal/catalogue"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// declare gives the service the catalogue that its entry has or refers to, if any.
func (e *serviceEntry) declare(service *policy.Service, read func(name string) ([]byte, error)) []error {
	switch e.Unlisted {
	case "", "allow":
	case "reject":
		service.RejectUnlisted = true
	default:
		return []error{fmt.Errorf("unlisted: expected reject or allow, got %q", clip(e.Unlisted))}
	}
	switch {
	case e.Catalogue == "" && e.Events == nil:
		if e.Unlisted != "" {
			return []error{errors.New("unlisted: expected only beside catalogue or events")}
		}
		return nil
	case e.Catalogue != "" && e.Events != nil:
		return []error{errors.New("catalogue: is set together with events: expected one of them")}
	case !service.RejectUnlisted && service.PrivateMetadata == policy.AllowPrivate:
		// The author believes that it restricts the service.
		return []error{errors.New("the catalogue would restrict nothing: expected privateMetadata: drop or reject, or unlisted: reject")}
	case e.Events != nil:
		service.Catalogue = catalogue.Rules(e.Events)
		return catalogue.Faults(e.Events)
	}
	events, err := e.file(read)
	if err != nil {
		var errs []error
		for line := range strings.SplitSeq(err.Error(), "\n") {
			errs = append(errs, fmt.Errorf("catalogue: %s", line))
		}
		return errs
	}
	service.Catalogue = catalogue.Rules(events)
	return nil
}

// file reads the catalogue to which the entry refers.
func (e *serviceEntry) file(read func(name string) ([]byte, error)) ([]catalogue.Event, error) {
	if read == nil {
		return nil, errors.New("a file can be named in a services file only (WORKER_SERVICES_FILE): expected the events themselves, as events")
	}
	source, err := read(e.Catalogue)
	if err != nil {
		return nil, fmt.Errorf("expected a readable file: %w", err)
	}
	c, err := catalogue.Parse(source)
	if err != nil {
		return nil, err
	}
	if c.Service != e.ID {
		return nil, fmt.Errorf("expected that of this service, got that of %q", clip(c.Service))
	}
	return c.Events, nil
}

// emptyFields has a fault for each service, by its index, whose events or catalogue
// are there and empty: an empty list, an empty text, or nothing. The author meant none,
// while an absent field means any. The decoder makes no difference between nothing and
// an absent field.
func emptyFields(source []byte) map[int]error {
	var file struct {
		Services []struct {
			Catalogue yaml.Node `yaml:"catalogue"`
			Events    yaml.Node `yaml:"events"`
		} `yaml:"services"`
	}
	if yaml.Unmarshal(source, &file) != nil {
		return nil
	}
	empty := map[int]error{}
	for i, service := range file.Services {
		events := &service.Events
		if events.Alias != nil {
			events = events.Alias
		}
		switch {
		case !events.IsZero() && len(events.Content) == 0:
			empty[i] = errors.New("events: expected at least one, or no such field")
		case !service.Catalogue.IsZero() && (service.Catalogue.Value == "" || service.Catalogue.ShortTag() == "!!null"):
			empty[i] = errors.New("catalogue: expected the name of a file, or no such field")
		}
	}
	return empty
}
