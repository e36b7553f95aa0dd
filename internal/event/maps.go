package event

import (
	"bytes"
	"math"
)

// The gateway publishes events with attributes. A key of metadata that begins with
// attributePrefix, has at least two more bytes and a value above 0 becomes such an
// attribute, "event." before the key. The gateway adds four attributes of its own. Pub/Sub
// accepts keys of 256 bytes and 100 attributes (cloud.google.com/pubsub/quotas). It refuses
// a message with more, and then the gateway leaves the event out of every answer.
const (
	attributePrefix  = "recordsPrivateMetadata"
	maxAttributeKey  = 256 - len("event.")
	maxAttributeKeys = 100 - 4
)

// becomesAttribute reports whether the gateway turns an entry of metadata into an
// attribute.
func becomesAttribute(key []byte, value float64) bool {
	return value > 0 && len(key) >= len(attributePrefix)+2 && bytes.HasPrefix(key, []byte(attributePrefix))
}

// metadata encodes the numbers of parameters.metadata.
func (p *pass) metadata() {
	const name = "metadata"
	if p.peek() != '{' {
		p.wrongType("", []byte(name), "an object of numbers", 2)
		return
	}
	p.metadataAt = p.pos
	p.enter(2)
	base := len(p.keys)
	attributes := 0
	for first := true; p.member(first); first = false {
		key := p.push()
		if c := p.peek(); c != '-' && !isDigit(c) {
			p.wrongType(name, key, "a number", 3)
			continue
		}
		n := p.num()
		if p.syntax != "" {
			return
		}
		f, ok := parseDouble(p.data[n.start:n.end])
		if !ok {
			if p.fault == "" {
				p.invalid("%s: expected a number within the range of a 64-bit float", path(name, key))
			}
			continue
		}
		if becomesAttribute(key, f) {
			attributes++
			if len(key) > maxAttributeKey && p.fault == "" {
				p.invalid("%s[a key that begins with %s]: expected a key of at most %d bytes, got %d: the gateway makes an attribute of it", name, attributePrefix, maxAttributeKey, len(key))
			}
		}
		if p.hasRoom() {
			p.params = appendDoubleEntry(p.params, key, math.Float64bits(f))
		}
	}
	if attributes > maxAttributeKeys {
		p.invalid("metadata: expected at most %d keys that begin with %s and have a value above 0, got %d: the gateway makes attributes of them", maxAttributeKeys, attributePrefix, attributes)
	}
	p.pop(base, name)
}

// featureFlags encodes the strings of feature_flags.flags.
func (p *pass) featureFlags() {
	const name = "featureFlags"
	if p.peek() != '{' {
		p.wrongType("", []byte(name), "an object of strings", 2)
		return
	}
	p.enter(2)
	base := len(p.keys)
	dst, at := open(p.rest, numFeatureFlags)
	for first := true; p.member(first); first = false {
		key := p.push()
		if p.peek() != '"' {
			p.wrongType(name, key, "a string", 3)
			continue
		}
		dst = appendStringEntry(dst, key, p.bytes(p.str()))
	}
	p.rest = closeAt(dst, at)
	p.pop(base, name)
}

// hasRoom reports whether encoding should go on. It bounds memory: a number of two bytes
// becomes eleven on the wire. An event that exceeds maxWire is too large in JSON, too.
func (p *pass) hasRoom() bool {
	if p.emit && len(p.params) > maxWire {
		p.emit, p.tooLarge = false, true
	}
	return p.emit
}
