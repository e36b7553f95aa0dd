package dlqui

import (
	"embed"
	"fmt"
	"net/http"
	"os"
	"sync"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
)

//go:embed static templates
var files embed.FS

// Server serves the pages. Its background work ends with Close.
type Server struct {
	opts       Options
	queue      Queue
	guard      *guard
	background *background
	reader     *reader
	draft      *draft
	checks     *checks
	operations *operations
	handler    http.Handler

	mu   sync.Mutex // guards link
	link *link      // to another page; nil: none
}

// New returns a server, which begins to read the queue. The caller must call Close.
func New(queue Queue, opts Options) (*Server, error) {
	opts = opts.withDefaults()
	if err := os.MkdirAll(opts.Plans, 0o700); err != nil {
		return nil, fmt.Errorf("the folder of the plans: %w", err)
	}
	work := newBackground()
	checks := newChecks(queue.Check, work)
	s := &Server{
		opts: opts, queue: queue, guard: newGuard(opts.Host), background: work, draft: newDraft(), checks: checks,
		reader: &reader{queue: queue, folder: opts.Spool, environment: opts.About.Environment, background: work, replaced: checks.forget},
		operations: &operations{
			folder: planFolder(opts.Plans), runs: newRuns(queue, work), receipts: opts.About.Receipts, receiptsEvery: opts.ReceiptsEvery,
		},
	}
	s.handler = s.guard.wrap(s.routes())
	s.reader.start()
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
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close ends the background work as an interrupt ends a command, waits for it, and
// removes the spool.
func (s *Server) Close() {
	s.background.close()
	s.reader.close()
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

// withSpool calls serve with the spool, or shows how far the reading is.
func (s *Server) withSpool(w http.ResponseWriter, r *http.Request, serve func(*spool.Spool)) {
	current := s.reader.current()
	if current == nil {
		s.readingPage(w, r)
		return
	}
	defer current.Release()
	serve(current)
}

// readAgain is the refresh on demand.
func (s *Server) readAgain(w http.ResponseWriter, r *http.Request) {
	s.reader.start()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (s *Server) readingPage(w http.ResponseWriter, _ *http.Request) {
	p := s.page("Reading the queue", "faults")
	st := readingOf(s.reader.status())
	p.Command, p.Body = shell("stats"), st
	if !st.Done {
		p.Live, p.Reload = "/read/live", true
	}
	render(w, http.StatusOK, "reading.html", p)
}

// readingState is what a page shows of the latest reading.
type readingState struct {
	Read  int
	Done  bool
	Error string
}

func readingOf(status readerStatus) readingState {
	st := readingState{Read: status.count, Done: status.phase != goingOn}
	if status.failure != nil {
		st.Error = status.failure.Error()
	}
	return st
}

func (s *Server) readingLive(w http.ResponseWriter, r *http.Request) {
	s.stream(w, r, func() (fragment, error) {
		st := readingOf(s.reader.status())
		return fragmentOf("reading.html", "state", st, st.Done)
	})
}
