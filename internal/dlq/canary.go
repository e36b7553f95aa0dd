package dlq

import (
	"hash/maphash"
	"maps"
	"slices"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// Canaries are events that a replay published before the others, to see whether
// the worker rejects them again. The zero value has none.
type Canaries struct {
	origins map[string]int      // id of the first message → replay count
	events  map[string]struct{} // event ids
}

// Add adds an event that was replayed as m.
func (c *Canaries) Add(s *Stored, m *pubsubpb.PubsubMessage) {
	if c.origins == nil {
		c.origins, c.events = map[string]int{}, map[string]struct{}{}
	}
	c.origins[m.GetAttributes()[event.AttrOriginMessageID]] = event.Replays(m.GetAttributes())
	if s.EventID != "" {
		c.events[s.EventID] = struct{}{}
	}
}

// Origins returns the ids of the messages that were first published with the events.
func (c *Canaries) Origins() []string { return slices.Collect(maps.Keys(c.origins)) }

// Replayed are the events that a replay has published, by their origins. The zero
// value has none. It is not safe for concurrent use.
type Replayed struct {
	origins map[uint64]int // hash of the first message's id → replay count
}

// originSeed is random, so that publishers cannot choose ids whose hashes collide.
var originSeed = maphash.MakeSeed()

// Add adds an event that was replayed as m.
func (r *Replayed) Add(m *pubsubpb.PubsubMessage) {
	if r.origins == nil {
		r.origins = map[uint64]int{}
	}
	r.origins[maphash.String(originSeed, m.GetAttributes()[event.AttrOriginMessageID])] = event.Replays(m.GetAttributes())
}

// Returned reports whether a message is one of the events, rejected again.
func (r *Replayed) Returned(s *Stored) bool {
	origin, _ := event.Message{ID: s.OriginalID, Attributes: s.Original.Attributes}.Origin()
	count, ok := r.origins[maphash.String(originSeed, origin)]
	return ok && event.Replays(s.Original.Attributes) >= count
}

// Returned reports whether a message is a canary that was rejected again: it has the
// canary's origin and at least its replay count. If the message came after the replay
// began, the same event id is enough; an older message with that id is not the canary.
func (c *Canaries) Returned(s *Stored, after bool) bool {
	origin, _ := event.Message{ID: s.OriginalID, Attributes: s.Original.Attributes}.Origin()
	if count, ok := c.origins[origin]; ok && event.Replays(s.Original.Attributes) >= count {
		return true
	}
	_, ok := c.events[s.EventID]
	return ok && after
}
