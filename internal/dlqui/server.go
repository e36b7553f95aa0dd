package dlqui

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
)

//go:embed static templates
var files embed.FS

// Server serves the pages. Its background work ends with Close.
type Server struct {
	queue Queue
	opts  Options
	guard *guard
	mux   http.Handler

	summaries summaries

	ctx  context.Context //nolint:containedctx // of the background work; Close ends it
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex // guards what follows
	link    *link      // to another page; nil: none
	spool   *spool.Spool
	read    *reading // the reading that made spool
	next    *reading // the reading that goes on or has failed; nil: none
	chosen  map[string]plan.Step
	checks  map[checkKey]*check
	runs    map[string]*run
	checked []checkKey // of checks, the oldest first
}

// New returns a server, which begins to read the queue. The caller must call Close.
func New(queue Queue, opts Options) (*Server, error) {
	opts = opts.withDefaults()
	if err := os.MkdirAll(opts.Plans, 0o700); err != nil {
		return nil, fmt.Errorf("the folder of the plans: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		queue: queue, opts: opts, guard: newGuard(opts.Host), ctx: ctx, stop: stop,
		chosen: map[string]plan.Step{}, checks: map[checkKey]*check{}, runs: map[string]*run{},
	}
	s.mux = s.guard.wrap(s.routes())
	s.startReading()
	return s, nil
}

// Address returns the address to open, which admits one browser.
func (s *Server) Address() string { return s.guard.address() }

// Link puts a link to another page on this machine into the navigation.
func (s *Server) Link(text, address string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = &link{text, address}
}

// link is an entry of the navigation.
type link struct{ Text, Address string }

// ServeHTTP serves a page.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close ends the background work as an interrupt ends a command, waits for it, and
// removes the spool.
func (s *Server) Close() {
	s.stop()
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spool != nil {
		s.spool.Release()
		s.spool = nil
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /static/", http.FileServerFS(files))
	mux.HandleFunc("GET "+startPath, s.start)
	mux.HandleFunc("GET /{$}", s.faultsPage)
	mux.HandleFunc("POST /read", s.readAgain)
	mux.HandleFunc("GET /read/live", s.readingLive)
	mux.HandleFunc("GET /find", s.findEvent)
	mux.HandleFunc("GET /faults/{fault}", s.faultPage)
	mux.HandleFunc("GET /events/{id}", s.eventPage)
	mux.HandleFunc("POST /events/{id}/reveal", s.revealEvent)
	mux.HandleFunc("GET /faults/{fault}/fix", s.fixPage)
	mux.HandleFunc("GET /faults/{fault}/fix/samples", s.fixSamples)
	mux.HandleFunc("GET /faults/{fault}/fix/live", s.checkLive)
	mux.HandleFunc("GET /plan", s.planPage)
	mux.HandleFunc("POST /plan", s.changePlan)
	mux.HandleFunc("POST /plan/make", s.makePlan)
	mux.HandleFunc("GET /operations", s.operationsPage)
	mux.HandleFunc("GET /operations/{name}", s.operationPage)
	mux.HandleFunc("GET /operations/{name}/live", s.operationLive)
	mux.HandleFunc("POST /operations/{name}/apply", s.apply)
	mux.HandleFunc("POST /operations/{name}/stop", s.stopRun)
	mux.HandleFunc("POST /operations/{name}/restore", s.restore)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusNotFound, "There is no such page.")
	})
	return mux
}

// start admits the browser that has the token of the printed address.
func (s *Server) start(w http.ResponseWriter, r *http.Request) {
	if !s.guard.admit(w, r) {
		refuse(w, http.StatusForbidden, "This address was used already, or was copied incompletely: it works once. End the command and start it again for a new one.")
		return
	}
	render(w, http.StatusOK, "start.html", &page{Title: "Dead-letter queue", GoTo: "/"})
}

// reading is one read of the queue in the background.
type reading struct {
	began time.Time

	mu   sync.Mutex // guards what follows
	read int
	done bool
	Reading
	ended time.Time
	err   error
}

func (r *reading) snapshot() (read int, done bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read, r.done, r.err
}

// startReading reads the queue in the background, unless that goes on.
func (s *Server) startReading() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next != nil {
		if _, done, _ := s.next.snapshot(); !done {
			return
		}
	}
	next := &reading{began: time.Now()}
	s.next = next
	s.work.Go(func() { s.readQueue(next) })
}

func (s *Server) readQueue(r *reading) {
	w, err := spool.Create(s.opts.Spool, s.opts.About.Environment)
	var result Reading
	if err == nil {
		result, err = s.queue.Read(s.ctx, w, func(n int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.read = n
		})
	}
	var made *spool.Spool
	if err == nil {
		made = w.Finish()
		for _, f := range made.Faults() {
			f.Owner, f.Runbook = s.queue.Owner(f.Service)
		}
	} else if w != nil {
		w.Abort()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done, r.err, r.ended, r.Reading = true, err, time.Now(), result
	if made == nil {
		return
	}
	if s.spool != nil {
		s.spool.Release()
	}
	s.spool, s.read, s.next = made, r, nil
	s.checks, s.checked = map[checkKey]*check{}, nil
}

var errNotRead = errors.New("the queue was not read yet")

// current returns the spool, which the caller must release.
func (s *Server) current() (*spool.Spool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spool == nil || !s.spool.Hold() {
		return nil, errNotRead
	}
	return s.spool, nil
}

// withSpool calls serve with the spool, or shows how far the reading is.
func (s *Server) withSpool(w http.ResponseWriter, r *http.Request, serve func(*spool.Spool)) {
	current, err := s.current()
	if err != nil {
		s.readingPage(w, r)
		return
	}
	defer current.Release()
	serve(current)
}

// readAgain is the refresh on demand.
func (s *Server) readAgain(w http.ResponseWriter, r *http.Request) {
	s.startReading()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *Server) readingPage(w http.ResponseWriter, _ *http.Request) {
	p := s.page("Reading the queue", "faults")
	p.Command = shell("stats")
	p.Body = s.readingState()
	if st := p.Body.(readingState); !st.Done {
		p.Live, p.Reload = "/read/live", true
	}
	render(w, http.StatusOK, "reading.html", p)
}

// readingState is what a page says of the reading that goes on.
type readingState struct {
	Read  int
	Done  bool
	Error string
}

func (s *Server) readingState() readingState {
	s.mu.Lock()
	next := s.next
	s.mu.Unlock()
	if next == nil {
		return readingState{Done: true}
	}
	read, done, err := next.snapshot()
	st := readingState{Read: read, Done: done}
	if err != nil {
		st.Error = err.Error()
	}
	return st
}

func (s *Server) readingLive(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, func() (fragment, error) {
		st := s.readingState()
		return fragmentOf("reading.html", "state", st, st.Done)
	})
}
