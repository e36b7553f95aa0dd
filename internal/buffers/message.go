package buffers

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// chunkSize is the size of the buffers in which a message is put together: so
	// large that their number costs nothing, and so small that hardly more memory is
	// taken than the message has.
	chunkSize = 32 << 10
	// MaxCopied is how long a field may be to be copied, in bytes; a longer one is
	// handed over.
	MaxCopied = chunkSize / 2
	// header is how long the tag and the length of a field are at most.
	header = 2 * 5
)

// Message puts an encoded protobuf message together. The zero value is empty.
type Message struct {
	parts mem.BufferSlice
	chunk *[]byte // that is being filled; nil: none
	size  int     // that is still expected
}

// NewMessage begins a message of about this size, in bytes.
func NewMessage(size int) *Message {
	return &Message{parts: make(mem.BufferSlice, 0, size/chunkSize+1), size: size}
}

// Header begins a field of kind bytes, of which the caller appends the content.
func (m *Message) Header(number protowire.Number, size int) {
	b := m.room(header)
	*b = protowire.AppendTag(*b, number, protowire.BytesType)
	*b = protowire.AppendVarint(*b, uint64(size))
}

// Bytes appends a field. A long value is not copied, and must not change.
func (m *Message) Bytes(number protowire.Number, value []byte) {
	m.Header(number, len(value))
	if len(value) > MaxCopied {
		m.finish()
		m.size -= len(value)
		m.parts = append(m.parts, mem.SliceBuffer(value))
		return
	}
	b := m.room(len(value))
	*b = append(*b, value...)
}

// String appends a field. The value is copied.
func (m *Message) String(number protowire.Number, value string) {
	m.Header(number, len(value))
	for value != "" {
		b := m.room(min(len(value), MaxCopied))
		n := min(len(value), cap(*b)-len(*b))
		*b = append(*b, value[:n]...)
		value = value[n:]
	}
}

// Finish returns what was appended; the message is not used any more.
func (m *Message) Finish() mem.BufferSlice {
	m.finish()
	return m.parts
}

// room returns the chunk to append so many bytes to.
func (m *Message) room(n int) *[]byte {
	if m.chunk != nil && cap(*m.chunk)-len(*m.chunk) >= n {
		return m.chunk
	}
	m.finish()
	m.chunk = Pool.Get(max(n, min(m.size+header, chunkSize)))
	*m.chunk = (*m.chunk)[:0]
	return m.chunk
}

func (m *Message) finish() {
	if m.chunk == nil {
		return
	}
	m.size -= len(*m.chunk)
	m.parts = append(m.parts, mem.NewBuffer(m.chunk, Pool))
	m.chunk = nil
}
