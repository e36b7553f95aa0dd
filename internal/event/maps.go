package event

import "math"

// metadata encodes the numbers of parameters.metadata.
func (p *pass) metadata() {
	const name = "metadata"
	if p.peek() != '{' {
		p.wrongType("", []byte(name), "an object of numbers", 2)
		return
	}
	p.enter(2)
	base := len(p.keys)
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
		if p.hasRoom() {
			p.params = appendDoubleEntry(p.params, key, math.Float64bits(f))
		}
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

// hasRoom reports whether encoding makes sense still. A number of two bytes
// becomes eleven on the wire, so what is too large must stop growing early.
func (p *pass) hasRoom() bool {
	if p.emit && len(p.params) > maxWire {
		p.emit, p.tooLarge = false, true
	}
	return p.emit
}
