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
// Private metadata is printed, too. Of cfg, only Service and Process are used. Everything
// else is as with New: the checks, the counts, and a nil recorder with an error.
func NewDebug(w io.Writer, cfg Config) (*Recorder, error) {
	v, err := newValidator(cfg.Service)
	if err != nil {
		return nil, err
	}
	v.process = cfg.Process
	p := &printer{to: w}
	p.accounting = newAccounting(slog.New(slog.DiscardHandler))
	p.accounting.perMessage = v.attributeBytes
	report := func(err error) { _ = p.print(err.Error()) } // no other place to report it
	p.accounting.onRefuse, p.accounting.onStrip = report, report
	return &Recorder{validator: v, accounting: p.accounting, outlet: p}, nil
}

// printer is an outlet that prints to a terminal.
type printer struct {
	accounting *accounting
	closed     atomic.Bool

	mu sync.Mutex // guards to
	to io.Writer
}

func (p *printer) put(_ context.Context, data []byte) error {
	if p.closed.Load() {
		return ErrClosed
	}
	p.accounting.take(len(data))
	err := p.print("recorded " + string(data))
	p.accounting.settle(len(data), err)
	return nil
}

func (p *printer) print(text string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := fmt.Fprintln(p.to, "telemetry: "+printable(text))
	return err
}

// printable replaces characters that could control a terminal.
func printable(text string) string {
	clean := []rune(text)
	for i, r := range clean {
		if !unicode.IsPrint(r) {
			clean[i] = unicode.ReplacementChar
		}
	}
	return string(clean)
}

func (p *printer) flush(context.Context) error { return p.accounting.lost.take() }

func (p *printer) close(context.Context) error {
	p.closed.Store(true)
	return p.accounting.lost.take()
}
