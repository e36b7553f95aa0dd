// Package spool keeps one reading of the dead-letter queue in a temporary file, with an
// index in memory, so that a person can look at any message at once and the queue is not
// read again.
package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

// Writer writes a spool. It is not safe for concurrent use.
type Writer struct {
	spool  *Spool
	counts dlq.Faults
	size   int64
	seen   map[string]struct{} // ids in the queue: Pub/Sub may deliver a message twice
}

// Create begins a spool in a folder; empty: that of temporary files. Only the user may
// read its file. An event that does not name its environment belongs to environment.
func Create(folder, environment string) (*Writer, error) {
	file, err := os.CreateTemp(folder, "dlq-*.spool") // with mode 0600
	if err != nil {
		return nil, err
	}
	s := &Spool{file: file, environment: environment, faults: map[string][]int32{}, names: map[string]int32{}, users: 1}
	// The system deletes an unlinked file at any end of the process. A system that cannot
	// unlink an open file keeps it until Release.
	s.unlinked = os.Remove(file.Name()) == nil
	return &Writer{spool: s, counts: dlq.Faults{Now: time.Now()}, seen: map[string]struct{}{}}, nil
}

// Add writes a message.
func (w *Writer) Add(m *pubsubpb.PubsubMessage) error {
	if _, twice := w.seen[m.GetMessageId()]; twice {
		return nil
	}
	w.seen[m.GetMessageId()] = struct{}{}
	text, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("put a message into the spool: %w", err)
	}
	if _, err := w.spool.file.Write(text); err != nil {
		return fmt.Errorf("put a message into the spool: %w", err)
	}
	stored := dlq.Read(m, w.spool.environment)
	w.counts.Add(stored)
	n := int32(len(w.spool.entries)) // a queue has far less than 2³¹
	w.spool.entries = append(w.spool.entries, entry{w.size, len(text), stored.RejectedAt.UnixNano()})
	w.size += int64(len(text))
	id := dlq.FaultOf(stored).ID()
	w.spool.faults[id] = append(w.spool.faults[id], n)
	for _, name := range []string{stored.ID, stored.OriginalID, stored.EventID} {
		if _, taken := w.spool.names[name]; name != "" && !taken {
			w.spool.names[name] = n
		}
	}
	return nil
}

// Abort removes the spool.
func (w *Writer) Abort() { w.spool.Release() }

// Finish returns the spool. The caller must release it.
func (w *Writer) Finish() *Spool {
	s := w.spool
	for _, of := range s.faults {
		slices.SortFunc(of, func(a, b int32) int {
			return cmp.Or(cmp.Compare(s.entries[b].rejected, s.entries[a].rejected), cmp.Compare(a, b))
		})
	}
	s.counts = w.counts.Counts()
	return s
}

// Spool is one reading of the queue. It is safe for concurrent use.
type Spool struct {
	file        *os.File
	unlinked    bool
	environment string
	entries     []entry
	faults      map[string][]int32 // messages of each fault, the newest first
	names       map[string]int32   // by the ids in the queue, the original ids and the event ids
	counts      []*dlq.FaultCount

	mu    sync.Mutex // guards users
	users int
}

// entry is where a message is in the file.
type entry struct {
	offset   int64
	size     int
	rejected int64 // nanoseconds since 1970
}

// Hold adds a user of the spool, who must call Release. It reports whether the spool still
// exists.
func (s *Spool) Hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		return false
	}
	s.users++
	return true
}

// Release ends one use of the spool. The last Release removes it.
func (s *Spool) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users > 0 {
		return
	}
	_ = s.file.Close() // it was only read
	if !s.unlinked {
		_ = os.Remove(s.file.Name())
	}
}

// Len returns how many messages there are.
func (s *Spool) Len() int { return len(s.entries) }

// Faults returns the faults, the largest first. The caller must not change them.
func (s *Spool) Faults() []*dlq.FaultCount { return s.counts }

// Of returns the numbers of the messages with a fault, the newest first. The caller must
// not change them.
func (s *Spool) Of(fault string) []int32 { return s.faults[fault] }

// Find returns the number of a message by its id in the queue, its original message id or
// its event's id.
func (s *Spool) Find(id string) (n int32, ok bool) {
	n, ok = s.names[id]
	return n, ok
}

// ErrNone means that no message has the number.
var ErrNone = errors.New("there is no such message")

// Read reads a message.
func (s *Spool) Read(n int32) (*dlq.Stored, error) {
	if n < 0 || int(n) >= len(s.entries) {
		return nil, ErrNone
	}
	e := s.entries[n]
	text := make([]byte, e.size)
	if _, err := s.file.ReadAt(text, e.offset); err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	m := &pubsubpb.PubsubMessage{}
	if err := proto.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("read the spool: %w", err)
	}
	return dlq.Read(m, s.environment), nil
}

// Each calls visit for messages until it returns an error or the context ends.
func (s *Spool) Each(ctx context.Context, numbers []int32, visit func(*dlq.Stored) error) error {
	for _, n := range numbers {
		if err := ctx.Err(); err != nil {
			return err
		}
		stored, err := s.Read(n)
		if err != nil {
			return err
		}
		if err := visit(stored); err != nil {
			return err
		}
	}
	return nil
}
