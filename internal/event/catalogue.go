package event

import (
	"fmt"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// The rules of a catalogue depend on feature and action, which may come last in the
// document. So they are applied when the whole document has been read, in a second
// walk over metadata and private metadata. Services without a catalogue have none.

// catalogueRules are the rules of the service's catalogue for the event of a pass.
type catalogueRules struct {
	pass    *pass
	service *policy.Service
	fields  policy.Fields // of the event, if it is listed
	listed  bool
}

func newCatalogueRules(p *pass, service *policy.Service) catalogueRules {
	fields, listed := service.Catalogue.Event(p.feature, p.action)
	return catalogueRules{pass: p, service: service, fields: fields, listed: listed}
}

// violation says what of the event the catalogue does not list, "" if the event may pass.
// It names no field of the private metadata that is not listed: the name may be data, too.
func (r catalogueRules) violation() string {
	if r.service.RejectUnlisted {
		if !r.listed {
			return fmt.Sprintf("action: the catalogue does not list %s of %s", quote(r.pass.action), quote(r.pass.feature))
		}
		if key := r.unlistedKey(); key != nil {
			return fmt.Sprintf("%s: the catalogue allows %s", path("metadata", key), list(policy.Names(r.fields.Metadata)))
		}
	}
	if r.service.PrivateMetadata == policy.RejectPrivate {
		if at := r.unlistedPrivate(); at > 0 {
			return fmt.Sprintf("privateMetadata: the field at byte offset %d (the first is 0) is not listed; the catalogue allows %s", at, list(policy.Names(r.fields.Private)))
		}
	}
	return ""
}

// unlistedKey returns the first key of the metadata that is not listed, nil if there is
// none.
func (r catalogueRules) unlistedKey() []byte {
	p := r.pass
	if p.metadataAt == 0 {
		return nil
	}
	p.pos = p.metadataAt
	p.enter(2)
	base := len(p.keys)
	defer func() { p.keys = p.keys[:base] }()
	for first := true; p.member(first); first = false {
		if key := p.push(); !r.fields.Metadata[string(key)] && string(key) != policy.ErrorKey {
			return key
		}
		p.skipScalar()
	}
	return nil
}

// unlistedPrivate returns where the first field of the private metadata begins that
// is not listed, 0 if there is none.
func (r catalogueRules) unlistedPrivate() int {
	p := r.pass
	if p.privateAt == 0 {
		return 0
	}
	p.pos = p.privateAt
	p.enter(2)
	base := len(p.keys)
	defer func() { p.keys = p.keys[:base] }()
	for first := true; p.member(first); first = false {
		if key := p.push(); !r.fields.Private[string(key)] {
			return p.key.start - 1 // its quote
		}
		p.skip(3)
	}
	return 0
}

// relayListed encodes the listed fields of the private metadata and leaves out the others.
func (r catalogueRules) relayListed() {
	p := r.pass
	if p.privateAt == 0 || len(r.fields.Private) == 0 {
		return
	}
	p.pos = p.privateAt
	p.enter(2)
	base, begin := len(p.keys), len(p.params)
	params, at := open(p.params, numParamsPrivate)
	p.params = params
	for first := true; p.member(first); first = false {
		if key := p.push(); r.fields.Private[string(key)] {
			p.structField(key, 2)
		} else {
			p.skip(3)
		}
	}
	p.keys = p.keys[:base]
	switch {
	case !p.emit: // there is no room: the event is rejected
	case len(p.params) == at+1:
		p.params = p.params[:begin]
	default:
		p.params = closeAt(p.params, at)
	}
}
