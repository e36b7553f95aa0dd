package dlq

import (
	"context"
	"fmt"
	"io"

	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
)

// Exporter writes letters as lines and, if asked, removes them from the queue
// when the lines are safe.
type Exporter struct {
	Out io.Writer
	// Sync returns when everything that was written is safe; nil if there is
	// nothing to wait for.
	Sync func() error
	// Remove takes letters out of the queue; nil leaves them there.
	Remove func(ctx context.Context, messageIDs []string) error
	// Broken also takes letters that cannot be restored, as they are.
	Broken bool
	// Report is told of letters that are left.
	Report func(*Stored, error)

	// OnDone, if set, is told of the letters that are safe, and removed if asked.
	OnDone func(messageIDs []string)

	// Done and Failed count letters.
	Done, Failed int
	pending      []string
}

// Letter writes one letter.
func (e *Exporter) Letter(s *Stored) error {
	if s.Broken != nil && !e.Broken {
		e.Failed++
		e.Report(s, s.Broken)
		return nil
	}
	text, err := ndjson.Append(nil, s.Original)
	if err != nil {
		return fmt.Errorf("put a letter into a line: %w", err)
	}
	if _, err := e.Out.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("write a letter: %w", err)
	}
	e.pending = append(e.pending, s.ID)
	return nil
}

// Flush makes sure of what was written, and then removes it.
func (e *Exporter) Flush(ctx context.Context) error {
	if len(e.pending) == 0 {
		return nil
	}
	ids := e.pending
	e.pending = nil
	if e.Sync != nil {
		if err := e.Sync(); err != nil {
			return fmt.Errorf("write letters: %w", err)
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
