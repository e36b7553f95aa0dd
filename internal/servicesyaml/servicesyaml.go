// Package servicesyaml reads services.yaml: which services may publish, and what, and
// the catalogues of events to which it refers.
// It imports little, because services' own tests bring it along with
// recorder/recordertest.
package servicesyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/sourcegraph/telemetry-relay/internal/catalogue"
	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// serviceID is MSP's form of a service's or an environment's id.
var serviceID = regexp.MustCompile(`^[a-z0-9-]+$`)

type servicesFile struct {
	UnknownServices string         `yaml:"unknownServices"`
	Services        []serviceEntry `yaml:"services"`
}

type serviceEntry struct {
	ID              string    `yaml:"id"`
	Environments    yaml.Node `yaml:"environments"`
	PrivateMetadata string    `yaml:"privateMetadata"`
	Features        yaml.Node `yaml:"features"`
	// Catalogue is the file of a catalogue; Events are the events themselves, in the
	// form that they have there.
	Catalogue string            `yaml:"catalogue"`
	Events    []catalogue.Event `yaml:"events"`
	Unlisted  string            `yaml:"unlisted"`
	Owner     string            `yaml:"owner"`
	Runbook   string            `yaml:"runbook"`
}

// list reads a list of texts that may be absent. An empty list is a fault: its author
// meant none, while an absent list means any.
func list(node yaml.Node) ([]string, error) {
	if node.IsZero() {
		return nil, nil
	}
	var texts []string
	if err := node.Decode(&texts); err != nil {
		return nil, errors.Join(yamlFaults(err)...)
	}
	given := node.Content
	if node.Alias != nil {
		given = node.Alias.Content
	}
	if len(given) == 0 {
		return nil, fmt.Errorf("line %d: expected a list with at least one, or no such field for any", node.Line)
	}
	if slices.Contains(texts, "") || len(texts) < len(given) { // null is left out
		return nil, fmt.Errorf("line %d: one is empty", node.Line)
	}
	return texts, nil
}

// Parse reads services.yaml strictly: unknown keys, unknown values and
// services that are listed twice are errors, and all of them are listed, a line
// each. The source is no file, so that an entry must not refer to one.
func Parse(source []byte) (*policy.Set, error) { return parse(source, nil) }

// ParseFile is Parse for a file. Names of catalogues are relative to its directory.
func ParseFile(name string) (*policy.Set, error) {
	source, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("expected a readable file: %w", err)
	}
	return parse(source, func(catalogue string) ([]byte, error) {
		if !filepath.IsAbs(catalogue) {
			catalogue = filepath.Join(filepath.Dir(name), catalogue)
		}
		return os.ReadFile(catalogue)
	})
}

// parse reads services.yaml, and the files to which it refers with read, which is nil
// if it must not refer to any.
func parse(source []byte, read func(name string) ([]byte, error)) (*policy.Set, error) {
	file, err := decode(source)
	if err != nil {
		return nil, err
	}
	var errs []error
	allowUnknown, err := file.allowsUnknown()
	if err != nil {
		errs = append(errs, err)
	}
	empty := emptyFields(source)
	services := make([]*policy.Service, len(file.Services))
	for i, entry := range file.Services {
		service, faults := entry.service(empty[i], read)
		for _, err := range faults {
			errs = append(errs, fmt.Errorf("%s: %w", entry.name(i), err))
		}
		services[i] = service
	}
	set, err := policy.NewSet(services, allowUnknown)
	if err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return set, nil
}

// decode reads the one document that the source must be.
func decode(source []byte) (*servicesFile, error) {
	file := &servicesFile{}
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	decoder.KnownFields(true)
	switch err := decoder.Decode(file); {
	case errors.Is(err, io.EOF):
		// It would reject every event.
		return nil, errors.New("expected the form of services.yaml, and found nothing")
	case err != nil:
		return nil, errors.Join(yamlFaults(err)...)
	}
	if err := decoder.Decode(new(servicesFile)); !errors.Is(err, io.EOF) {
		return nil, errors.New("expected one YAML document")
	}
	return file, nil
}

// allowsUnknown reports whether services that are not listed may publish.
func (f *servicesFile) allowsUnknown() (bool, error) {
	switch f.UnknownServices {
	case "", "reject":
		if len(f.Services) == 0 {
			return false, errors.New("services: expected at least one, or unknownServices: allow; else every event is rejected")
		}
		return false, nil
	case "allow":
		return true, nil
	default:
		return false, fmt.Errorf("unknownServices: expected reject or allow, got %q", clip(f.UnknownServices))
	}
}

// name returns how an error names the entry with this index.
func (e *serviceEntry) name(i int) string {
	if e.ID == "" {
		return fmt.Sprintf("services[%d]", i)
	}
	return fmt.Sprintf("service %q", clip(e.ID))
}

// service returns the service that the entry describes, and the faults of the entry.
// empty is the entry's fault that emptyFields found, nil if there is none.
func (e *serviceEntry) service(empty error, read func(name string) ([]byte, error)) (service *policy.Service, faults []error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !serviceID.MatchString(e.ID) {
		fault("expected an id of lower-case letters, digits and hyphens")
	}
	environments, err := list(e.Environments)
	if err != nil {
		fault("environments: %w", err)
	}
	features, err := list(e.Features)
	if err != nil {
		fault("features: %w", err)
	}
	private, err := e.privateMetadata()
	if err != nil {
		fault("privateMetadata: %w", err)
	}
	service = &policy.Service{
		ID:              e.ID,
		Environments:    environments,
		PrivateMetadata: private,
		Features:        features,
		Owner:           e.Owner,
		Runbook:         e.Runbook,
	}
	if empty != nil {
		return service, append(faults, empty)
	}
	return service, append(faults, e.declare(service, read)...)
}

func (e *serviceEntry) privateMetadata() (policy.PrivateMetadata, error) {
	switch e.PrivateMetadata {
	case "", "allow":
		return policy.AllowPrivate, nil
	case "drop":
		return policy.DropPrivate, nil
	case "reject":
		return policy.RejectPrivate, nil
	default:
		return policy.AllowPrivate, fmt.Errorf("expected allow, drop or reject, got %q", clip(e.PrivateMetadata))
	}
}

// clip shortens a text that an error repeats.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
