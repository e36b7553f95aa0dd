// Package policy says which services may publish, and what: the content of
// services.yaml after it has been read.
package policy

import (
	"errors"
	"fmt"
	"path"
	"slices"
)

// PrivateMetadata says what becomes of an event's private metadata.
type PrivateMetadata int

const (
	// AllowPrivate relays private metadata. The default.
	AllowPrivate PrivateMetadata = iota
	// DropPrivate relays the event without it.
	DropPrivate
	// RejectPrivate rejects an event that carries any.
	RejectPrivate
)

// Service is one publisher and what it may publish.
type Service struct {
	// ID is MSP's service id.
	ID string
	// Environments that it may publish for; none means any.
	Environments []string
	// PrivateMetadata says what becomes of private metadata.
	PrivateMetadata PrivateMetadata
	// Features are globs in which * stands for any characters; none means any
	// feature.
	Features []string
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

// Set is all services. It is immutable and safe for concurrent use.
type Set struct {
	services     []*Service
	byID         map[string]*Service
	allowUnknown bool
}

// NewSet returns the set of the services. With allowUnknown, a service that is
// not listed may publish anything. The error lists all that is wrong, a line
// each.
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

// unlisted is a service that may publish anything: any that is not listed.
var unlisted = &Service{}

// Lookup returns what the service may publish, and whether it may publish at
// all. For one that is not listed and may, that is a Service without an ID, the
// same for all.
func (s *Set) Lookup(serviceID string) (*Service, bool) {
	if service, ok := s.byID[serviceID]; ok {
		return service, true
	}
	if s.allowUnknown {
		return unlisted, true
	}
	return nil, false
}

// Listed reports whether services.yaml names the service: only those may
// become the value of a metric's label.
func (s *Set) Listed(serviceID string) bool {
	_, ok := s.byID[serviceID]
	return ok
}

// AllowsUnknown reports whether services that are not listed may publish.
func (s *Set) AllowsUnknown() bool { return s.allowUnknown }

// Services returns the services in the order in which they are listed. The
// caller must not change them.
func (s *Set) Services() []*Service { return s.services }
