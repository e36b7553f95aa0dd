package dlqui

import (
	"net/http"
	"slices"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
)

// readingPages are the pages of a reading that goes on. The other pages read the queue's
// messages through them: a page without messages shows how far the reading is.
type readingPages struct {
	layout  *layout
	streams *streams
	reader  *reader
}

func (p *readingPages) register(mux *http.ServeMux) {
	mux.HandleFunc("POST /read", p.again)
	mux.HandleFunc("GET /read/live", p.live)
}

// with calls serve with the spool, or shows how far the reading is.
func (p *readingPages) with(w http.ResponseWriter, serve func(*spool.Spool)) {
	current := p.reader.current()
	if current == nil {
		p.show(w)
		return
	}
	defer current.Release()
	serve(current)
}

// withFault calls serve with the fault that the address names, or refuses the request if no
// message has it.
func (p *readingPages) withFault(w http.ResponseWriter, r *http.Request, serve func(*spool.Spool, *dlq.FaultCount)) {
	p.with(w, func(current *spool.Spool) {
		f := findFault(current, r.PathValue("fault"))
		if f == nil {
			refuse(w, http.StatusNotFound, "No message that was read has this fault. It may be solved, or its messages are leased by another reader: read the queue again.")
			return
		}
		serve(current, f)
	})
}

// findFault returns a fault of the spool, or nil.
func findFault(current *spool.Spool, id string) *dlq.FaultCount {
	i := slices.IndexFunc(current.Faults(), func(f *dlq.FaultCount) bool { return f.ID != "" && f.ID == id })
	if i < 0 {
		return nil
	}
	return current.Faults()[i]
}

// again reads the queue again, because a person has asked for it.
func (p *readingPages) again(w http.ResponseWriter, r *http.Request) {
	p.reader.start()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (p *readingPages) show(w http.ResponseWriter) {
	shown := p.layout.page("Reading the queue", "faults")
	status := p.reader.status()
	shown.Command, shown.Body = shell("stats"), readingOf(status)
	if status.phase != failed { // also if it has succeeded just now: the live part then loads the page again
		shown.Live, shown.Reload = "/read/live", true
	}
	render(w, http.StatusOK, "reading.html", shown)
}

func (p *readingPages) live(w http.ResponseWriter, r *http.Request) {
	p.streams.serve(w, r, func() (fragment, error) {
		st := readingOf(p.reader.status())
		return fragmentOf("reading.html", "state", st, st.Done)
	})
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
