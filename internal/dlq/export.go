package dlq

import (
	"context"
	"fmt"
	"io"
	"maps"

	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
)

// Exporter writes messages as lines. If Remove is set, it removes each from the queue
// when its line is on disk.
type Exporter struct {
	Out io.Writer
	// Sync returns when all lines are on disk; nil if Out needs no sync.
	Sync func() error
	// Remove acknowledges messages; nil leaves them in the queue.
	Remove func(ctx context.Context, messageIDs []string) error
	// Broken also writes messages that cannot be restored, as they are.
	Broken bool
	// Report is called for each message that is not exported.
	Report func(*Stored, error)

	// OnDone, if set, is called with the messages that are written, and removed if asked.
	OnDone func(messageIDs []string)

	// Done and Failed are numbers of messages.
	Done, Failed int
	pending      []string
}

// Add writes one message.
func (e *Exporter) Add(s *Stored) error {
	if s.Broken != nil && !e.Broken {
		e.Failed++
		e.Report(s, s.Broken)
		return nil
	}
	text, err := Line(s)
	if err != nil {
		return err
	}
	if _, err := e.Out.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("write a message: %w", err)
	}
	e.pending = append(e.pending, s.ID)
	return nil
}

// Line returns the line of a message, without its line break. It has all that Restore
// needs. A message that cannot be restored is in it as it is in the queue.
func Line(s *Stored) ([]byte, error) {
	m := s.Original
	if s.Broken == nil { // else Original has all attributes
		m.DeadLetter = deadLetterOf(s)
	}
	text, err := ndjson.Append(nil, m)
	if err != nil {
		return nil, fmt.Errorf("put a message into a line: %w", err)
	}
	return text, nil
}

func deadLetterOf(s *Stored) *ndjson.DeadLetter {
	added := maps.Clone(s.Added)
	delete(added, AttrEncoding) // the line has the original data
	d := &ndjson.DeadLetter{
		ID: s.ID, MessageID: s.OriginalID, PublishTime: s.OriginalPublishTime.UTC(), FirstRejectedAt: s.FirstRejectedAt.UTC(),
		Replays: s.Replays, Attributes: added,
	}
	if added[AttrRejectedAt] == "" {
		d.RejectedAt = s.RejectedAt.UTC()
	}
	return d
}

// Flush waits until the lines are on disk, and then removes their messages.
func (e *Exporter) Flush(ctx context.Context) error {
	if len(e.pending) == 0 {
		return nil
	}
	ids := e.pending
	e.pending = nil
	if e.Sync != nil {
		if err := e.Sync(); err != nil {
			return fmt.Errorf("write messages: %w", err)
		}
	}
	if e.Remove != nil {
		if err := e.Remove(ctx, ids); err != nil {
			e.Failed += len(ids)
			return err
		}
	}
	e.Done += len(ids)
	if e.OnDone != nil {
		e.OnDone(ids)
	}
	return nil
}
