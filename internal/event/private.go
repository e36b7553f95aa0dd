package event

import (
	"math"
	"slices"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// No code in this file may put a key or a value into a detail.

// privateMetadata encodes parameters.private_metadata, a google.protobuf.Struct.
func (p *pass) privateMetadata() {
	if p.peek() != '{' {
		p.wrongType("", []byte("privateMetadata"), "an object", 2)
		return
	}
	p.privateAt = p.pos
	emit := p.emit
	p.emit = emit && p.relay == policy.AllowPrivate
	if p.emit {
		// Most values are not longer on the wire. Growing once keeps a large one from being
		// copied repeatedly.
		if left := len(p.data) - p.pos; left > maxKept {
			p.params = slices.Grow(p.params, min(left, maxWire))
		}
		var at int
		p.params, at = open(p.params, numParamsPrivate)
		p.structFields(2)
		if p.emit {
			p.params = closeAt(p.params, at)
		}
		return
	}
	p.structFields(2)
	p.emit = emit
}

// structFields encodes the members of an object as the fields of a Struct.
func (p *pass) structFields(level int) {
	if !p.enter(level) {
		return
	}
	base := len(p.keys)
	for first := true; p.member(first); first = false {
		p.isPrivate = true
		p.structField(p.push(), level)
	}
	p.pop(base, "")
}

// structField encodes one member of an object of this level.
func (p *pass) structField(key []byte, level int) {
	var entry, value int
	if p.hasRoom() {
		p.params, entry = open(p.params, numStructFields)
		p.params = appendBytesField(p.params, numEntryKey, key)
		p.params, value = open(p.params, numEntryValue)
	}
	p.value(level+1, entry, value)
}

// listValues encodes the elements of an array as the values of a ListValue.
func (p *pass) listValues(level int) {
	if !p.enter(level) {
		return
	}
	for first := true; p.element(first); first = false {
		var value int
		if p.hasRoom() {
			p.params, value = open(p.params, numListValues)
		}
		p.value(level+1, value, value)
	}
}

// value encodes a value of any type as the content of a Value. It closes the messages that
// are open at entry and value, which are the same in a list.
func (p *pass) value(level, entry, value int) {
	inner := value
	switch c := p.peek(); {
	case c == '"':
		t := p.str()
		if !p.emit || p.syntax != "" {
			return
		}
		if t.escaped {
			p.params, inner = open(p.params, numValueString)
			p.params = appendUnescaped(p.params, p.data[t.start:t.end])
		} else {
			p.params = appendBytesField(p.params, numValueString, p.data[t.start:t.end])
		}
	case c == '-' || isDigit(c):
		p.privateNumber()
	case c == '{':
		if p.emit {
			p.params, inner = open(p.params, numValueStruct)
		}
		p.structFields(level)
	case c == '[':
		if p.emit {
			p.params, inner = open(p.params, numValueList)
		}
		p.listValues(level)
	default:
		p.skipScalar()
		if p.emit {
			p.params = appendWord(p.params, c)
		}
	}
	if p.emit {
		p.params = closeAll(p.params, entry, value, inner)
	}
}

func (p *pass) privateNumber() {
	n := p.num()
	if p.syntax != "" {
		return
	}
	f, ok := parseDouble(p.data[n.start:n.end])
	if !ok {
		p.invalid("privateMetadata: expected a number within the range of a 64-bit float at byte offset %d (the first is 0)", n.start)
	}
	if p.emit {
		p.params = appendFixed64Field(p.params, numValueNumber, math.Float64bits(f))
	}
}

// appendWord appends null, true or false, which begins with c, as a field of a
// Value.
func appendWord(dst []byte, c byte) []byte {
	switch c {
	case 't':
		return appendVarintField(dst, numValueBool, 1)
	case 'f':
		return appendVarintField(dst, numValueBool, 0)
	default:
		return appendVarintField(dst, numValueNull, 0)
	}
}
