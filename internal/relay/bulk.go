package relay

import (
	"bytes"
	"context"

	"golang.org/x/sync/semaphore"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/submit"
)

// Most events are shorter in the gateway's encoding than in JSON. Some are much
// longer: a number of two bytes has eleven there. What is in flight is bounded by
// the bytes of the messages, so the encoding of such an event is not kept: it is
// made anew for each of its streams, of which so many bytes go on at a time.

// An encoding is kept if it is not longer than so many percent of its message, and
// some bytes for ids and times that a short message leaves out. Making it anew costs
// as much as decoding the message, and with the message itself it is within the
// memory that LimitMemory of internal/app gives to what is in flight.
const (
	keptPercent = 140
	keptMargin  = 1 << 10
)

// bulk is an event whose encoding is made when it is submitted.
type bulk struct {
	index   int // in the batch
	message event.Message
	size    int // of the encoding, in bytes
}

// shed drops the encoding of an event that is much longer than its message. Its id
// stays.
func (h *held) shed() {
	if size := len(h.event.Wire); size > len(h.message.Data)*keptPercent/100+keptMargin {
		h.apart().bulk = size
		h.event.Wire = bytes.Clone(h.event.Wire[:h.event.IDEnd()])
	}
}

// size is the length of the event's encoding, in bytes.
func (h *held) size() int {
	if h.rare != nil && h.rare.bulk > 0 {
		return h.rare.bulk
	}
	return len(h.event.Wire)
}

// bulks bounds the encodings that are made at a time.
type bulks struct {
	room *semaphore.Weighted
	all  int64
}

// newBulks returns the bound for a relay that holds so many bytes at most: half of
// them, and one event in any case.
func newBulks(maxBytes int64) bulks {
	all := max(1, maxBytes/2)
	return bulks{semaphore.NewWeighted(all), all}
}

// submitBulk is Submit for a batch with events whose encoding was dropped.
func (r *Relay) submitBulk(ctx context.Context, b submit.Batch, missing []bulk) submit.Result {
	size := int64(0)
	for _, m := range missing {
		size += int64(m.size)
	}
	size = min(size, r.bulks.all)
	if err := r.bulks.room.Acquire(ctx, size); err != nil {
		return submit.Result{Failure: submit.NotSent(err)}
	}
	defer r.bulks.room.Release(size)
	for _, m := range missing {
		e, _, rejection := r.decoded(nil, m.message)
		if rejection != nil { // it was valid on arrival, by the same rules
			return submit.Result{Failure: submit.NotSent(rejection)}
		}
		b.Events[m.index] = &e
	}
	return r.gateway.Submit(ctx, b)
}
