package relay

import (
	"bytes"
	"context"

	"golang.org/x/sync/semaphore"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// Most events are shorter in the gateway's encoding than in JSON. Some are much longer:
// a number of two bytes has eleven there. The memory of the events in flight is bounded
// by the bytes of their messages. So a long encoding is dropped after the arrival and
// made anew for each of its streams, a bounded number of bytes at a time.

// An encoding is kept if it is not longer than so many percent of its message, and
// some bytes for ids and times that a short message leaves out. Making it anew costs
// as much as decoding the message. With the message it is within the memory that
// LimitMemory of internal/app gives to events in flight.
const (
	keptPercent = 140
	keptMargin  = 1 << 10
)

// dropLongEncoding drops the encoding of an event that is much longer than its message.
// Its id stays.
func (e *inflight) dropLongEncoding() {
	if size := len(e.event.Wire); size > len(e.message.Data)*keptPercent/100+keptMargin {
		e.droppedSize = int32(size)
		e.event.Wire = bytes.Clone(e.event.Wire[:e.event.IDEnd()])
	}
}

// size is the length of the event's encoding, in bytes.
func (e *inflight) size() int {
	if e.droppedSize > 0 {
		return int(e.droppedSize)
	}
	return len(e.event.Wire)
}

// dropped is an event whose encoding was dropped, in a batch.
type dropped struct {
	index   int // in the batch
	message event.Message
	size    int // of the encoding, in bytes
}

// encoder makes dropped encodings anew. It is safe for concurrent use.
type encoder struct {
	decode Decode
	room   *semaphore.Weighted // bytes that may exist at a time
	all    int64
}

// newEncoder returns an encoder whose encodings have half of so many bytes together at
// most, and one of any size in any case.
func newEncoder(decode Decode, maxBytes int64) *encoder {
	all := max(1, maxBytes/2)
	return &encoder{decode: decode, room: semaphore.NewWeighted(all), all: all}
}

// submit is Gateway.Submit for a batch with dropped encodings.
func (c *encoder) submit(ctx context.Context, to Gateway, b submit.Batch, missing []dropped) submit.Result {
	size := int64(0)
	for _, m := range missing {
		size += int64(m.size)
	}
	size = min(size, c.all)
	if err := c.room.Acquire(ctx, size); err != nil {
		return submit.Result{Failure: submit.NotSent(err)}
	}
	defer c.room.Release(size)
	for _, m := range missing {
		e, _, rejection := c.decode(nil, m.message)
		if rejection != nil { // it was valid on arrival, by the same rules
			return submit.Result{Failure: submit.NotSent(rejection)}
		}
		b.Events[m.index] = &e
	}
	return to.Submit(ctx, b)
}
