package gatewayserver

import (
	"maps"
	"slices"
	"sync"
)

// Record is one recorded event.
type Record struct {
	Identity
	// RequestID is the stream's.
	RequestID string
	// StreamID is the StreamInfo's ID.
	StreamID int
	Event    *Event
}

// Counts has the counts of one identity, or of all.
type Counts struct {
	// Streams is the number of RPCs whose metadata was accepted.
	Streams int
	// Payloads is the number of payloads received in them.
	Payloads int
	// Received is the number of events in those payloads.
	Received int
	// Recorded is the number of events recorded, duplicates included.
	Recorded int
	// Invalid is the number of events not recorded for a permanent cause.
	Invalid int
	// SilentlyLost is the number of oversized events reported as succeeded.
	SilentlyLost int
	// Unpublished is the number of events whose publish request was refused or
	// lost.
	Unpublished int
	// Omitted is the number of events left out of a response by a Fault.
	Omitted int
}

func (c *Counts) add(d Counts) {
	c.Streams += d.Streams
	c.Payloads += d.Payloads
	c.Received += d.Received
	c.Recorded += d.Recorded
	c.Invalid += d.Invalid
	c.SilentlyLost += d.SilentlyLost
	c.Unpublished += d.Unpublished
	c.Omitted += d.Omitted
}

// Stats counts what the server did since it started.
type Stats struct {
	Counts
	// RPCs counts all RPCs, refused ones too; of a stream, from its metadata on.
	RPCs int
	// Open is the number of RPCs going on whose metadata was accepted.
	Open int
	// Refused counts the RPCs whose metadata was not accepted, for whatever reason.
	Refused int
	// ByIdentity has an entry for each identity whose metadata was accepted.
	ByIdentity map[Identity]Counts
}

// ledger has the server's records and counts.
type ledger struct {
	mu         sync.Mutex // guards everything below
	records    []Record
	total      Counts
	byIdentity map[Identity]*Counts

	rpcs, open, refused int
}

func (b *ledger) count(id Identity, d Counts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.countLocked(id, d)
}

func (b *ledger) countLocked(id Identity, d Counts) {
	b.total.add(d)
	if b.byIdentity == nil {
		b.byIdentity = map[Identity]*Counts{}
	}
	c := b.byIdentity[id]
	if c == nil {
		c = &Counts{}
		b.byIdentity[id] = c
	}
	c.add(d)
}

func (b *ledger) arrived() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rpcs++
}

func (b *ledger) accepted(id Identity) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open++
	b.countLocked(id, Counts{Streams: 1})
}

func (b *ledger) ended() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
}

func (b *ledger) refuse() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.refused++
}

// record adds one payload's outcome to the counts.
func (s *Server) record(id Identity, records []Record, d Counts) {
	s.ledger.mu.Lock()
	if !s.opts.Discard {
		s.ledger.records = append(s.ledger.records, records...)
	}
	s.ledger.countLocked(id, d)
	s.ledger.mu.Unlock()
	if s.opts.OnRecord != nil {
		for _, r := range records {
			s.opts.OnRecord(r)
		}
	}
}

// Recorded returns the recorded events, in order; nothing with Options.Discard.
// The events must not be changed.
func (s *Server) Recorded() []Record {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	return slices.Clone(s.ledger.records)
}

// Forget empties what Recorded returns; the counts stay.
func (s *Server) Forget() {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	s.ledger.records = nil
}

// SilentlyLost returns how many events were reported as succeeded and dropped.
func (s *Server) SilentlyLost() int { return s.Stats().SilentlyLost }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	stats := Stats{
		Counts:     s.ledger.total,
		RPCs:       s.ledger.rpcs,
		Open:       s.ledger.open,
		Refused:    s.ledger.refused,
		ByIdentity: make(map[Identity]Counts, len(s.ledger.byIdentity)),
	}
	for id := range maps.Keys(s.ledger.byIdentity) {
		stats.ByIdentity[id] = *s.ledger.byIdentity[id]
	}
	return stats
}
