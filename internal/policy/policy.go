// Package policy has the rules of services.yaml: which services may publish, for which
// environments and features, which events they have declared, and whether with private
// metadata.
package policy

import (
	"errors"
	"fmt"
	"path"
	"slices"
)

// PrivateMetadata is the rule for an event's private metadata.
type PrivateMetadata int

const (
	// AllowPrivate relays private metadata. The default.
	AllowPrivate PrivateMetadata = iota
	// DropPrivate relays the event without its private metadata, but for the fields
	// that the service's catalogue lists for the event.
	DropPrivate
	// RejectPrivate rejects an event that has private metadata, but for the fields
	// that the service's catalogue lists for the event.
	RejectPrivate
)

// Service is one publisher and its rules.
type Service struct {
	// ID is MSP's service id.
	ID string
	// Environments are those that it may publish for; an empty list means any.
	Environments []string
	// PrivateMetadata is the rule for private metadata.
	PrivateMetadata PrivateMetadata
	// Features are globs in which * stands for any characters; an empty list means
	// any feature.
	Features []string
	// Catalogue has the events that the service has declared; nil means that it has
	// declared none, and may publish any.
	Catalogue Catalogue
	// RejectUnlisted rejects events, and keys of the metadata, that the catalogue does
	// not list. It needs a catalogue.
	RejectUnlisted bool
	// Owner and Runbook are shown to on-call; either may be empty.
	Owner, Runbook string
}

// AllowsEnvironment reports whether the service may publish for environment.
func (s *Service) AllowsEnvironment(environment string) bool {
	return len(s.Environments) == 0 || slices.Contains(s.Environments, environment)
}

// AllowsFeature reports whether the service may publish events of feature.
func (s *Service) AllowsFeature(feature string) bool {
	if len(s.Features) == 0 {
		return true
	}
	for _, glob := range s.Features {
		// NewSet has checked the globs, so the only possible error is gone.
		if ok, _ := path.Match(glob, feature); ok {
			return true
		}
	}
	return false
}

// Set is a list of services. It is immutable and safe for concurrent use.
type Set struct {
	services     []*Service
	byID         map[string]*Service
	allowUnknown bool
}

// NewSet returns the set of the services. With allowUnknown, a service that is
// not listed may publish anything. The error lists all faults, one a line.
func NewSet(services []*Service, allowUnknown bool) (*Set, error) {
	set := &Set{services: services, byID: make(map[string]*Service, len(services)), allowUnknown: allowUnknown}
	var errs []error
	for _, service := range services {
		if _, dup := set.byID[service.ID]; dup {
			errs = append(errs, fmt.Errorf("service %q is listed twice", service.ID))
		}
		for _, glob := range service.Features {
			if _, err := path.Match(glob, ""); err != nil {
				errs = append(errs, fmt.Errorf("service %q: feature %q is not a valid glob", service.ID, glob))
			}
		}
		set.byID[service.ID] = service
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return set, nil
}

// unlisted stands for every service that is not listed and may publish anything.
var unlisted = &Service{}

// Lookup returns the rules of a service, and whether the service may publish at all.
// All services that are not listed and may publish share one Service without an ID.
func (s *Set) Lookup(serviceID string) (*Service, bool) {
	if service, ok := s.byID[serviceID]; ok {
		return service, true
	}
	if s.allowUnknown {
		return unlisted, true
	}
	return nil, false
}

// Listed reports whether services.yaml names the service. Only a listed service may
// become the value of a metric's label, because anyone can invent ids.
func (s *Set) Listed(serviceID string) bool {
	_, ok := s.byID[serviceID]
	return ok
}

// AllowsUnknown reports whether services that are not listed may publish.
func (s *Set) AllowsUnknown() bool { return s.allowUnknown }

// Services returns the services in the order in which they are listed. The
// caller must not change them.
func (s *Set) Services() []*Service { return s.services }
