package dlqui

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
)

// audit records who sees private data; see Queue.Reveal.
type audit interface {
	Reveal(ctx context.Context, m *dlq.Stored) error
}

// eventPages are the pages of single events.
type eventPages struct {
	layout  *layout
	reading *readingPages
	audit   audit
}

func (p *eventPages) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /find", p.find)
	mux.HandleFunc("GET /events/{id}", p.show)
	mux.HandleFunc("POST /events/{id}/reveal", p.reveal)
}

// find redirects to the page of the event with an id.
func (p *eventPages) find(w http.ResponseWriter, r *http.Request) {
	p.reading.with(w, func(current *spool.Spool) {
		id := strings.TrimSpace(r.URL.Query().Get("id"))
		n, ok := current.Find(id)
		if !ok {
			refuse(w, http.StatusNotFound, "No message that was read has this id. It may be leased by another reader, or have come later: read the queue again. `worker trace ID` says where an event is.")
			return
		}
		stored, err := current.Read(n)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		http.Redirect(w, r, "/events/"+url.PathEscape(stored.ID), http.StatusSeeOther)
	})
}

// with calls serve with the event that the address names.
func (p *eventPages) with(w http.ResponseWriter, r *http.Request, serve func(*spool.Spool, *dlq.Stored)) {
	p.reading.with(w, func(current *spool.Spool) {
		n, ok := current.Find(r.PathValue("id"))
		if !ok {
			refuse(w, http.StatusNotFound, "No message that was read has this id. It may be replayed or removed, or leased by another reader: read the queue again.")
			return
		}
		m, err := current.Read(n)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		serve(current, m)
	})
}

func (p *eventPages) show(w http.ResponseWriter, r *http.Request) {
	p.with(w, r, func(current *spool.Spool, m *dlq.Stored) { p.render(w, current, m, false) })
}

// reveal shows the private data of one event after the audit file has a record of it. The
// page is the answer to a form, because a reload or a link would reveal the data again.
func (p *eventPages) reveal(w http.ResponseWriter, r *http.Request) {
	p.with(w, r, func(current *spool.Spool, m *dlq.Stored) {
		if err := p.audit.Reveal(r.Context(), m); err != nil {
			refuse(w, http.StatusInternalServerError, "The private data is not shown, because that cannot be recorded: "+err.Error())
			return
		}
		p.render(w, current, m, true)
	})
}

func (p *eventPages) render(w http.ResponseWriter, current *spool.Spool, m *dlq.Stored, reveal bool) {
	body := eventView(m, reveal)
	body.Fault = findFault(current, dlq.FaultOf(m).ID())
	shown := p.layout.page("Event "+body.Row.Name, "faults")
	args := []string{"show", cmp.Or(body.Row.Name, m.ID)}
	if reveal {
		args = append(args, "--reveal")
		shown.Notice = "The private data of this event is shown. The audit file has a record of it."
	}
	shown.Command, shown.Body = shell(args...), body
	render(w, http.StatusOK, "event.html", shown)
}

// eventPath returns the address of an event, whose id may be any text.
func eventPath(id string) string { return "/events/" + url.PathEscape(id) }
