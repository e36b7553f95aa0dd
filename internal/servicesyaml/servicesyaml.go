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
	var file servicesFile
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	decoder.KnownFields(true)
	switch err := decoder.Decode(&file); {
	case errors.Is(err, io.EOF):
		// It would reject every event.
		return nil, errors.New("expected the form of services.yaml, and found nothing")
	case err != nil:
		return nil, errors.Join(yamlFaults(err)...)
	}
	if err := decoder.Decode(new(servicesFile)); !errors.Is(err, io.EOF) {
		return nil, errors.New("expected one YAML document")
	}

	empty := emptyFields(source)
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	allowUnknown := false
	switch file.UnknownServices {
	case "", "reject":
		if len(file.Services) == 0 {
			fault("services: expected at least one, or unknownServices: allow; else every event is rejected")
		}
	case "allow":
		allowUnknown = true
	default:
		fault("unknownServices: expected reject or allow, got %q", clip(file.UnknownServices))
	}
	services := make([]*policy.Service, 0, len(file.Services))
	for i, entry := range file.Services {
		where := fmt.Sprintf("services[%d]", i)
		if entry.ID != "" {
			where = fmt.Sprintf("service %q", clip(entry.ID))
		}
		if !serviceID.MatchString(entry.ID) {
			fault("%s: expected an id of lower-case letters, digits and hyphens", where)
		}
		environments, err := list(entry.Environments)
		if err != nil {
			fault("%s: environments: %w", where, err)
		}
		features, err := list(entry.Features)
		if err != nil {
			fault("%s: features: %w", where, err)
		}
		private := policy.AllowPrivate
		switch entry.PrivateMetadata {
		case "", "allow":
		case "drop":
			private = policy.DropPrivate
		case "reject":
			private = policy.RejectPrivate
		default:
			fault("%s: privateMetadata: expected allow, drop or reject, got %q", where, clip(entry.PrivateMetadata))
		}
		service := &policy.Service{
			ID:              entry.ID,
			Environments:    environments,
			PrivateMetadata: private,
			Features:        features,
			Owner:           entry.Owner,
			Runbook:         entry.Runbook,
		}
		if err := empty[i]; err != nil {
			fault("%s: %w", where, err)
		} else {
			for _, err := range entry.declare(service, read) {
				fault("%s: %w", where, err)
			}
		}
		services = append(services, service)
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

// clip shortens a text that an error repeats.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
