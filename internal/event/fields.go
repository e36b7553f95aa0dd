package event

import "math"

// shape is a kind of object whose fields are all known.
type shape struct {
	name   string
	fields []field
	names  []string
}

// field is a field of a shape: a string unless integer is set.
type field struct {
	name string
	num  byte
	// An implicit field has no presence on the wire: the empty string is the same as none.
	implicit bool
	integer  bool
	// A nested field is the only one of a message of its own.
	nested bool
}

func newShape(name string, fields ...field) *shape {
	s := &shape{name: name, fields: fields}
	for _, f := range fields {
		s.names = append(s.names, f.name)
	}
	return s
}

var (
	userShape = newShape("user",
		field{name: "samsExternalId", num: 3},
		field{name: "anonymousUserId", num: 2},
		field{name: "userId", num: 1, integer: true})
	clientShape = newShape("client",
		field{name: "name", num: 1, implicit: true},
		field{name: "version", num: 2})
	interactionShape = newShape("interaction",
		field{name: "traceId", num: numTraceID},
		field{name: "interactionId", num: 2},
		field{name: "countryCode", num: 3, nested: true})
	billingShape = newShape("billingMetadata",
		field{name: "product", num: 1, implicit: true},
		field{name: "category", num: 2, implicit: true})
	marketingShape = newShape("marketingTracking",
		field{name: "url", num: 1},
		field{name: "firstSourceUrl", num: 2},
		field{name: "cohortId", num: 3},
		field{name: "referrer", num: 4},
		field{name: "lastSourceUrl", num: 5},
		field{name: "deviceSessionId", num: 6},
		field{name: "sessionReferrer", num: 7},
		field{name: "sessionFirstUrl", num: 8})
)

// object decodes an object of this shape and appends the content of its message.
func (p *pass) object(dst []byte, sh *shape) []byte {
	if p.peek() != '{' {
		p.wrongType("", []byte(sh.name), "an object", 2)
		return dst
	}
	p.enter(2)
	seen, latest := 0, -1
	for first := true; p.member(first); first = false {
		key := p.bytes(p.key)
		i := indexOf(sh.names, key, latest)
		if i < 0 {
			p.unknown(sh.name, key, sh.names, 3)
			continue
		}
		latest = i
		if seen&(1<<i) != 0 {
			p.duplicate(sh.name, key, 3)
			continue
		}
		seen |= 1 << i
		if p.null() {
			continue
		}
		dst = p.fieldValue(dst, sh, &sh.fields[i])
	}
	return dst
}

// indexOf returns the index of the key among the names, or -1. It begins after the latest
// one that was found, because most publishers write the fields in their documented order.
func indexOf(names []string, key []byte, latest int) int {
	for i := latest + 1; i < len(names); i++ {
		if names[i] == string(key) {
			return i
		}
	}
	for i := range latest + 1 {
		if names[i] == string(key) {
			return i
		}
	}
	return -1
}

func (p *pass) fieldValue(dst []byte, sh *shape, f *field) []byte {
	if f.integer {
		i, ok := p.integer(sh.name, f.name, 3, math.MinInt64, math.MaxInt64)
		if !ok {
			return dst
		}
		return appendVarintField(dst, f.num, uint64(i))
	}
	if p.peek() != '"' {
		p.wrongType(sh.name, []byte(f.name), "a string", 3)
		return dst
	}
	b := p.bytes(p.str())
	switch {
	case f.nested:
		return appendNested(dst, f.num, b)
	case f.implicit && len(b) == 0:
		return dst
	}
	if sh == interactionShape && f.num == numTraceID {
		p.hasTrace = true
	}
	return appendBytesField(dst, f.num, b)
}
