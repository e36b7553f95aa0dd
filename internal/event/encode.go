package event

import (
	"encoding/binary"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of telemetrygateway.v1 and of google.protobuf.Struct. All are below 16, so
// every tag is one byte.
const (
	numID           = 1
	numTimestamp    = 2
	numFeature      = 3
	numAction       = 4
	numSource       = 5
	numParams       = 6
	numUser         = 7
	numFeatureFlags = 8
	numMarketing    = 9
	numInteraction  = 10

	numSeconds = 1
	numNanos   = 2

	numSourceServer  = 1
	numSourceClient  = 2
	numServerVersion = 1

	numParamsVersion  = 1
	numParamsPrivate  = 3
	numParamsBilling  = 4
	numParamsMetadata = 5

	numFlags   = 1
	numTraceID = 1

	numEntryKey   = 1
	numEntryValue = 2

	numStructFields = 1
	numListValues   = 1
	numValueNull    = 1
	numValueNumber  = 2
	numValueString  = 3
	numValueBool    = 4
	numValueStruct  = 5
	numValueList    = 6
)

func appendTag(dst []byte, num byte, wireType protowire.Type) []byte {
	return append(dst, num<<3|byte(wireType))
}

func appendLen(dst []byte, n int) []byte {
	if n < 0x80 {
		return append(dst, byte(n))
	}
	return protowire.AppendVarint(dst, uint64(n))
}

func appendVarintField(dst []byte, num byte, v uint64) []byte {
	return protowire.AppendVarint(appendTag(dst, num, protowire.VarintType), v)
}

func appendFixed64Field(dst []byte, num byte, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendTag(dst, num, protowire.Fixed64Type), v)
}

func appendBytesField[T string | []byte](dst []byte, num byte, b T) []byte {
	return append(appendLen(appendTag(dst, num, protowire.BytesType), len(b)), b...)
}

// appendNested appends a message that has only field 1.
func appendNested(dst []byte, num byte, b []byte) []byte {
	size := 0
	if len(b) > 0 {
		size = bytesFieldSize(len(b))
	}
	dst = appendLen(appendTag(dst, num, protowire.BytesType), size)
	if size == 0 {
		return dst
	}
	return appendBytesField(dst, 1, b)
}

// bytesFieldSize returns the size of a field of n bytes with its tag and length.
func bytesFieldSize(n int) int { return 1 + protowire.SizeBytes(n) }

// appendDoubleEntry appends an entry of parameters.metadata.
func appendDoubleEntry(dst, key []byte, double uint64) []byte {
	dst = appendTag(dst, numParamsMetadata, protowire.BytesType)
	dst = appendLen(dst, bytesFieldSize(len(key))+1+8)
	dst = appendBytesField(dst, numEntryKey, key)
	return appendFixed64Field(dst, numEntryValue, double)
}

// appendStringEntry appends an entry of feature_flags.flags.
func appendStringEntry(dst, key, value []byte) []byte {
	dst = appendTag(dst, numFlags, protowire.BytesType)
	dst = appendLen(dst, bytesFieldSize(len(key))+bytesFieldSize(len(value)))
	dst = appendBytesField(dst, numEntryKey, key)
	return appendBytesField(dst, numEntryValue, value)
}

// open begins a message whose length is not known yet. It reserves one byte for the length,
// which suffices for most messages, and returns its position.
func open(dst []byte, num byte) ([]byte, int) {
	dst = append(dst, num<<3|byte(protowire.BytesType), 0)
	return dst, len(dst) - 1
}

// closeAt ends the message whose length is at this position.
func closeAt(dst []byte, at int) []byte {
	if n := len(dst) - at - 1; n < 0x80 {
		dst[at] = byte(n)
		return dst
	}
	return closeAll(dst, at, at, at)
}

// closeAll ends three messages at once, each inside the one before. Equal positions mean
// the same message. Longer lengths need more room, for which every byte moves at most once.
// So a document with n bytes at its deepest level costs n moves per level rather than per
// message.
func closeAll(dst []byte, outer, middle, inner int) []byte {
	end := len(dst)
	if end-outer-1 < 0x80 {
		dst[outer], dst[middle], dst[inner] = byte(end-outer-1), byte(end-middle-1), byte(end-inner-1)
		return dst
	}
	var marks [3]int
	marks[0] = outer
	count := 1
	if middle != outer {
		marks[count] = middle
		count++
	}
	if inner != middle {
		marks[count] = inner
		count++
	}
	var sizes [3]int
	extra := 0
	for i := count - 1; i >= 0; i-- {
		sizes[i] = end - marks[i] - 1 + extra
		extra += protowire.SizeVarint(uint64(sizes[i])) - 1
	}
	dst = slices.Grow(dst, extra)[:end+extra]
	for i := count - 1; i >= 0; i-- {
		// The bytes after this length move by the room for it and for the lengths before
		// it.
		copy(dst[marks[i]+1+extra:], dst[marks[i]+1:end])
		end = marks[i]
		extra -= protowire.SizeVarint(uint64(sizes[i])) - 1
		appendLen(dst[:marks[i]+extra], sizes[i])
	}
	return dst
}

// assemble appends the encoded event. The id comes first, as Event.ID requires.
func (p *pass) assemble(buf []byte) []byte {
	version := p.sender.version
	server := 0
	if version != "" {
		server = bytesFieldSize(len(version))
	}
	source := bytesFieldSize(server)
	if p.hasClient {
		source += bytesFieldSize(len(p.client))
	}
	if !p.hasInteraction {
		if trace := p.sender.trace; trace != "" {
			dst, at := open(p.rest, numInteraction)
			p.rest = closeAt(appendBytesField(dst, numTraceID, trace), at)
		}
	}
	// The timestamp has at most two tags, ten bytes of seconds and five of nanoseconds.
	const timestamp = 2 + 2 + 10 + 5
	buf = slices.Grow(buf, bytesFieldSize(len(p.idText))+timestamp+bytesFieldSize(len(p.feature))+bytesFieldSize(len(p.action))+
		bytesFieldSize(source)+bytesFieldSize(len(p.params))+len(p.rest))

	buf = appendBytesField(buf, numID, p.idText)
	buf, at := open(buf, numTimestamp)
	if p.timestamp.seconds != 0 {
		buf = appendVarintField(buf, numSeconds, uint64(p.timestamp.seconds))
	}
	if p.timestamp.nanos != 0 {
		buf = appendVarintField(buf, numNanos, uint64(p.timestamp.nanos))
	}
	buf = closeAt(buf, at)
	buf = appendBytesField(buf, numFeature, p.feature)
	buf = appendBytesField(buf, numAction, p.action)
	buf = appendLen(appendTag(buf, numSource, protowire.BytesType), source)
	buf = appendLen(appendTag(buf, numSourceServer, protowire.BytesType), server)
	if server > 0 {
		buf = appendBytesField(buf, numServerVersion, version)
	}
	if p.hasClient {
		buf = appendBytesField(buf, numSourceClient, p.client)
	}
	buf = appendBytesField(buf, numParams, p.params)
	return append(buf, p.rest...)
}
