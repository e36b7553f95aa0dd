package dlqui

import (
	"embed"
	"fmt"
	"net/http"
	"os"
)

//go:embed static templates
var files embed.FS

// Server serves the pages. Its background work ends with Close.
type Server struct {
	guard      *guard
	background *background
	reader     *reader
	layout     *layout
	handler    http.Handler
}

// New returns a server, which begins to read the queue. The caller must call Close.
func New(queue Queue, opts Options) (*Server, error) {
	opts = opts.withDefaults()
	if err := os.MkdirAll(opts.Plans, 0o700); err != nil {
		return nil, fmt.Errorf("the folder of the plans: %w", err)
	}
	background := newBackground()
	checks := newChecks(queue.Check, background)
	reader := &reader{queue: queue, folder: opts.Spool, environment: opts.About.Environment, background: background, replaced: checks.forget}
	guard, draft := newGuard(opts.Host), newDraft()
	layout := &layout{about: opts.About, csrf: guard.csrf, reader: reader, draft: draft}
	streams := &streams{every: opts.Refresh, ended: background.ctx.Done()}
	reading := &readingPages{layout: layout, streams: streams, reader: reader}
	operations := &operations{
		folder: planFolder(opts.Plans), runs: newRuns(queue, background), receipts: opts.About.Receipts, receiptsEvery: opts.ReceiptsEvery,
	}
	handler := routes(
		guard,
		reading,
		&faultPages{layout: layout, reading: reading, draft: draft},
		&eventPages{layout: layout, reading: reading, audit: queue},
		&fixPages{layout: layout, streams: streams, reading: reading, draft: draft, checks: checks},
		&planPages{layout: layout, reading: reading, draft: draft, operations: operations},
		&operationPages{layout: layout, streams: streams, operations: operations},
	)
	reader.start()
	return &Server{guard: guard, background: background, reader: reader, layout: layout, handler: guard.wrap(handler)}, nil
}

// routes serves some groups of pages, and what they share.
func routes(groups ...interface{ register(mux *http.ServeMux) }) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /static/", http.FileServerFS(files))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "There is no such page.")
	})
	for _, g := range groups {
		g.register(mux)
	}
	return mux
}

// Address returns the address to open, which admits one browser.
func (s *Server) Address() string { return s.guard.address() }

// Link puts a link to another page on this machine into the navigation.
func (s *Server) Link(text, address string) { s.layout.setLink(text, address) }

// ServeHTTP serves a page.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close ends the background work as an interrupt ends a command, waits for it, and
// removes the spool.
func (s *Server) Close() {
	s.background.close()
	s.reader.close()
}
