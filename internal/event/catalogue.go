package event

import (
	"fmt"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// The rules of a catalogue depend on feature and action, which may come last in the
// document. So they are applied when the whole document has been read, in a second
// walk over metadata and private metadata. Services without a catalogue have none.

// unlisted says what of the event the service's catalogue does not list, "" if the
// event may pass. It names no field of the private metadata that is not listed: the
// name may be data, too.
func (p *pass) unlisted(service *policy.Service) string {
	fields, ok := service.Catalogue.Event(p.feature, p.action)
	if service.RejectUnlisted {
		if !ok {
			return fmt.Sprintf("action: the catalogue does not list %s of %s", quote(p.action), quote(p.feature))
		}
		if key := p.unlistedKey(fields.Metadata); key != nil {
			return fmt.Sprintf("%s: the catalogue allows %s", path("metadata", key), list(policy.Names(fields.Metadata)))
		}
	}
	if service.PrivateMetadata == policy.RejectPrivate {
		if at := p.unlistedPrivate(fields.Private); at > 0 {
			return fmt.Sprintf("privateMetadata: the field at byte offset %d (the first is 0) is not listed; the catalogue allows %s", at, list(policy.Names(fields.Private)))
		}
	}
	return ""
}

// unlistedKey returns the first key of the metadata that is not among the listed
// ones, nil if there is none.
func (p *pass) unlistedKey(listed map[string]bool) []byte {
	if p.metadataAt == 0 {
		return nil
	}
	p.pos = p.metadataAt
	p.enter(2)
	base := len(p.keys)
	defer func() { p.keys = p.keys[:base] }()
	for first := true; p.member(first); first = false {
		if key := p.push(); !listed[string(key)] && string(key) != policy.ErrorKey {
			return key
		}
		p.skipScalar()
	}
	return nil
}

// unlistedPrivate returns where the first field of the private metadata begins that
// is not among the listed ones, 0 if there is none.
func (p *pass) unlistedPrivate(listed map[string]bool) int {
	if p.privateAt == 0 {
		return 0
	}
	p.pos = p.privateAt
	p.enter(2)
	base := len(p.keys)
	defer func() { p.keys = p.keys[:base] }()
	for first := true; p.member(first); first = false {
		if key := p.push(); !listed[string(key)] {
			return p.key.start - 1 // its quote
		}
		p.skip(3)
	}
	return 0
}

// relayListed encodes the fields of the private metadata that the catalogue lists for
// the event, and leaves out the others.
func (p *pass) relayListed(service *policy.Service) {
	fields, _ := service.Catalogue.Event(p.feature, p.action)
	if p.privateAt == 0 || len(fields.Private) == 0 {
		return
	}
	p.pos = p.privateAt
	p.enter(2)
	base, begin := len(p.keys), len(p.params)
	params, at := open(p.params, numParamsPrivate)
	p.params = params
	for first := true; p.member(first); first = false {
		if key := p.push(); fields.Private[string(key)] {
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
