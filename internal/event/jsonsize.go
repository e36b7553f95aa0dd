package event

import (
	"encoding/binary"
	"math"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// The gateway renders an event with protojson and passes the result through encoding/json,
// which writes < > & and U+2028 and U+2029 as six bytes each. This file computes the size
// of the result from the wire bytes, in one pass and without building messages: an event of
// 3 MB may have a million values, for which the messages would take hundreds of megabytes.

// jsonSize returns how many bytes the event and the metadata of its request take in the
// gateway's JSON. The bytes must be an event that this package has encoded.
func jsonSize(wire []byte, publisher Publisher) int {
	return eventJSON.size(wire) + metadataJSON + textExtra(publisher.ServiceID) + textExtra(publisher.Environment)
}

// metadataJSON is the size of a request's metadata without the publisher's texts.
const metadataJSON = len(`{"requestId":"","identifier":{"managedService":{"serviceId":"","serviceEnvironment":""}}}`) + idLen

// jsonMessage describes the JSON of a message: an object with a member for each field.
type jsonMessage [numInteraction + 1]jsonField

// jsonField is one member. A field without a name is not encoded by this package.
type jsonField struct {
	name string
	// value returns the size of a field's value as JSON.
	value func(wireValue) int
	// entry, in place of value, returns the size of a member of a map, whose entries
	// are fields of their own on the wire.
	entry func(wireValue) int
}

// wireValue is the value of a field: bytes, or bits for a number.
type wireValue struct {
	bits  uint64
	bytes []byte
}

var eventJSON = &jsonMessage{
	numID:        {name: "id", value: textSize},
	numTimestamp: {name: "timestamp", value: timestampSize},
	numFeature:   {name: "feature", value: textSize},
	numAction:    {name: "action", value: textSize},
	numSource: message("source", &jsonMessage{
		numSourceServer: message("server", &jsonMessage{numServerVersion: {name: "version", value: textSize}}),
		numSourceClient: message("client", texts(clientShape)),
	}),
	numParams: message("parameters", &jsonMessage{
		numParamsVersion:  {name: "version", value: int32Size},
		numParamsPrivate:  {name: "privateMetadata", value: structSize},
		numParamsBilling:  message("billingMetadata", texts(billingShape)),
		numParamsMetadata: {name: "metadata", entry: doubleEntrySize},
	}),
	numUser:         message("user", texts(userShape)),
	numFeatureFlags: message("featureFlags", &jsonMessage{numFlags: {name: "flags", entry: textEntrySize}}),
	numMarketing:    message("marketingTracking", texts(marketingShape)),
	numInteraction:  message("interaction", texts(interactionShape)),
}

func message(name string, m *jsonMessage) jsonField {
	return jsonField{name: name, value: func(v wireValue) int { return m.size(v.bytes) }}
}

// texts returns the members for the fields of a shape. The gateway uses the same names,
// except for the nested field.
func texts(s *shape) *jsonMessage {
	m := new(jsonMessage)
	for _, f := range s.fields {
		switch {
		case f.nested:
			m[f.num] = message("geolocation", &jsonMessage{1: {name: f.name, value: textSize}})
		case f.integer:
			m[f.num] = jsonField{name: f.name, value: int64Size}
		default:
			m[f.num] = jsonField{name: f.name, value: textSize}
		}
	}
	return m
}

// size returns the size of the object.
func (m *jsonMessage) size(b []byte) int {
	size := len("{}")
	var seen [len(m)]bool
	members := 0
	for len(b) > 0 {
		var num byte
		var v wireValue
		num, v, b = nextField(b)
		if int(num) >= len(m) || m[num].name == "" {
			continue
		}
		f := &m[num]
		first := !seen[num]
		seen[num] = true
		if first {
			members++
			size += len(`"":`) + len(f.name)
		}
		switch {
		case f.value != nil:
			size += f.value(v)
		case first:
			size += len("{}") + f.entry(v)
		default:
			size += len(",") + f.entry(v)
		}
	}
	return size + max(0, members-1)
}

// nextField takes a field off the front of a message that this package has encoded: its
// number is below 16, so the tag is one byte.
func nextField(b []byte) (num byte, v wireValue, rest []byte) {
	tag := b[0]
	b = b[1:]
	switch protowire.Type(tag & 7) {
	case protowire.VarintType:
		bits, n := protowire.ConsumeVarint(b)
		return tag >> 3, wireValue{bits: bits}, b[n:]
	case protowire.Fixed64Type:
		return tag >> 3, wireValue{bits: binary.LittleEndian.Uint64(b)}, b[8:]
	default:
		if b[0] < 0x80 {
			end := 1 + int(b[0])
			return tag >> 3, wireValue{bytes: b[1:end]}, b[end:]
		}
		bytes, n := protowire.ConsumeBytes(b)
		return tag >> 3, wireValue{bytes: bytes}, b[n:]
	}
}

func textSize(v wireValue) int { return len(`""`) + textExtra(v.bytes) }

// textExtra returns how many bytes a text takes between its quotes.
func textExtra[T string | []byte](text T) int {
	size := len(text)
	for i := 0; i < len(text); i++ {
		c := text[i]
		size += int(escapes[c])
		// U+2028 and U+2029 have three bytes, and six in JSON.
		if c == 0xE2 && i+2 < len(text) && text[i+1] == 0x80 && text[i+2]&^1 == 0xA8 {
			size += 3
		}
	}
	return size
}

// escapes has, for each byte, how many bytes it takes beyond the first.
var escapes = func() (table [256]uint8) {
	const unicode = len(`\u0000`) - 1
	for c := range table[:' '] {
		table[c] = uint8(unicode)
	}
	for _, c := range "<>&" {
		table[c] = uint8(unicode)
	}
	for _, c := range "\"\\\b\f\n\r\t" {
		table[c] = 1
	}
	return table
}()

func int32Size(v wireValue) int { return decimals(int64(int32(v.bits))) }

// int64Size includes quotes, because protojson writes 64-bit integers as strings.
func int64Size(v wireValue) int { return len(`""`) + decimals(int64(v.bits)) }

func decimals(n int64) int {
	var b [20]byte
	return len(strconv.AppendInt(b[:0], n, 10))
}

func doubleSize(v wireValue) int {
	f := math.Float64frombits(v.bits)
	if f >= 1 && f < 1<<53 && f == math.Trunc(f) { // most numbers
		return decimals(int64(f))
	}
	format := byte('f')
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	var b [32]byte
	text := strconv.AppendFloat(b[:0], f, format, -1, 64)
	if n := len(text); format == 'e' && text[n-4] == 'e' && text[n-3] == '-' && text[n-2] == '0' {
		return n - 1 // e-09 is written as e-9
	}
	return len(text)
}

// timestampSize includes 0, 3, 6 or 9 digits of a second, as protojson writes them.
func timestampSize(v wireValue) int {
	nanos := uint64(0)
	for b := v.bytes; len(b) > 0; {
		var num byte
		var field wireValue
		if num, field, b = nextField(b); num == numNanos {
			nanos = field.bits
		}
	}
	size := len(`"2006-01-02T15:04:05Z"`)
	switch {
	case nanos == 0:
		return size
	case nanos%1e6 == 0:
		return size + len(".000")
	case nanos%1e3 == 0:
		return size + len(".000000")
	}
	return size + len(".000000000")
}

func doubleEntrySize(v wireValue) int { return entrySize(v, doubleSize) }
func textEntrySize(v wireValue) int   { return entrySize(v, textSize) }

// entrySize returns the size of a member of a map, whose entry has both fields.
func entrySize(v wireValue, value func(wireValue) int) int {
	_, key, rest := nextField(v.bytes)
	_, content, _ := nextField(rest)
	return textSize(key) + len(":") + value(content)
}

// structSize returns the size of a google.protobuf.Struct.
func structSize(v wireValue) int {
	size, n := len("{}"), 0
	for b := v.bytes; len(b) > 0; n++ {
		var entry wireValue
		_, entry, b = nextField(b)
		size += entrySize(entry, valueSize)
	}
	return size + max(0, n-1)
}

// listSize returns the size of a google.protobuf.ListValue.
func listSize(v wireValue) int {
	size, n := len("[]"), 0
	for b := v.bytes; len(b) > 0; n++ {
		var element wireValue
		_, element, b = nextField(b)
		size += valueSize(element)
	}
	return size + max(0, n-1)
}

// valueSize returns the size of a google.protobuf.Value.
func valueSize(v wireValue) int {
	num, content, _ := nextField(v.bytes)
	switch num {
	case numValueNumber:
		return doubleSize(content)
	case numValueString:
		return textSize(content)
	case numValueStruct:
		return structSize(content)
	case numValueList:
		return listSize(content)
	case numValueBool:
		if content.bits == 0 {
			return len("false")
		}
		return len("true")
	}
	return len("null")
}
