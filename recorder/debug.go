package recorder

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"unicode"
)

// NewDebug returns a recorder that prints events instead of publishing them, for a
// developer's terminal:
//
//	telemetry: recorded {"feature":"cody.hover","action":"shown",…}
//	telemetry: recorder: event "Cody", "shown": invalid_event: feature: expected …
//
// Private metadata is printed, too. Of cfg it uses Service and Process. Everything
// else is as with New: the checks, the counts, and a nil recorder with an error.
func NewDebug(w io.Writer, cfg Config) (*Recorder, error) {
	v, err := newValidator(cfg.Service)
	if err != nil {
		return nil, err
	}
	v.process = cfg.Process
	p := &printer{to: w}
	p.books = newBooks(slog.New(slog.DiscardHandler))
	p.books.perMessage = v.attributeBytes
	complain := func(err error) { _ = p.print(err.Error()) } // nobody to tell
	p.books.onRefuse, p.books.onStrip = complain, complain
	return &Recorder{validator: v, books: p.books, outlet: p}, nil
}

// printer is an outlet to a terminal.
type printer struct {
	books  *books
	closed atomic.Bool

	mu sync.Mutex // of to
	to io.Writer
}

func (p *printer) put(_ context.Context, data []byte) error {
	if p.closed.Load() {
		return ErrClosed
	}
	p.books.take(len(data))
	err := p.print("recorded " + string(data))
	p.books.settle(len(data), err)
	return nil
}

func (p *printer) print(text string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := fmt.Fprintln(p.to, "telemetry: "+printable(text))
	return err
}

// printable replaces characters that a terminal may obey.
func printable(text string) string {
	clean := []rune(text)
	for i, r := range clean {
		if !unicode.IsPrint(r) {
			clean[i] = unicode.ReplacementChar
		}
	}
	return string(clean)
}

func (p *printer) flush(context.Context) error { return p.books.lost.take() }

func (p *printer) close(context.Context) error {
	p.closed.Store(true)
	return p.books.lost.take()
}
