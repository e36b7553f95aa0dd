package dlqui

import (
	"cmp"
	"net/http"
	"net/url"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
)

// quickly bounds the wait of a page for a check, so that a check of few events is done when
// its page is shown.
const quickly = 60 * time.Millisecond

// fixPages are the page on which a person tries fixes of a fault, and its live parts.
type fixPages struct {
	layout  *layout
	streams *streams
	reading *readingPages
	draft   *draft
	checks  *checks
}

func (p *fixPages) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /faults/{fault}/fix", p.show)
	mux.HandleFunc("GET /faults/{fault}/fix/samples", p.samples)
	mux.HandleFunc("GET /faults/{fault}/fix/live", p.live)
}

// fixBody is the data of the page of a fix.
type fixBody struct {
	Fault         *dlq.FaultCount
	JQ, Suggested string
	Samples       samplesBody
	Check         *checkState // nil: not asked for
	Remedies      remedies
}

func (p *fixPages) show(w http.ResponseWriter, r *http.Request) {
	p.reading.withFault(w, r, func(current *spool.Spool, f *dlq.FaultCount) {
		messages, err := samples(r, current, f.ID, fixSamples)
		if err != nil || len(messages) == 0 {
			refuse(w, http.StatusInternalServerError, "The samples cannot be read.")
			return
		}
		query := r.URL.Query()
		body := fixBody{Fault: f, Suggested: dlq.SuggestFix(messages[0]), Remedies: remediesOf(p.draft, f.ID)}
		body.JQ = cmp.Or(query.Get("jq"), body.Remedies.Chosen.JQ, body.Suggested)
		shown := p.layout.page("Fix of "+f.ID, "faults")
		shown.Command = shell("replay", "--fault", f.ID, "--jq", body.JQ, "--dry-run")
		body.Samples = trySamples(r.Context(), p.checks.check, body.JQ, messages)
		if query.Get("all") != "" && body.Samples.Wrong == "" {
			state := replacedState
			if c := p.checks.begin(current, f.ID, body.JQ); c != nil {
				c.wait(r.Context(), quickly)
				state = c.snapshot()
			}
			body.Check = &state
			if !state.Done {
				shown.Live = "/faults/" + f.ID + "/fix/live?" + url.Values{"jq": {body.JQ}}.Encode()
			}
		}
		shown.Body = body
		render(w, http.StatusOK, "fix.html", shown)
	})
}

// samples serves the part of the page that the script loads whenever the expression changes.
func (p *fixPages) samples(w http.ResponseWriter, r *http.Request) {
	p.reading.withFault(w, r, func(current *spool.Spool, f *dlq.FaultCount) {
		messages, err := samples(r, current, f.ID, fixSamples)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		part, err := fragmentOf("fix.html", "samples", trySamples(r.Context(), p.checks.check, r.URL.Query().Get("jq"), messages), true)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(part.html) // the browser may have gone
	})
}

// replacedState stands in for a check whose spool was replaced.
var replacedState = checkState{Done: true, Error: "the queue was read again meanwhile: load the page again"}

func (p *fixPages) live(w http.ResponseWriter, r *http.Request) {
	c := p.check(r)
	p.streams.serve(w, r, func() (fragment, error) {
		state := replacedState
		if c != nil {
			state = c.snapshot()
		}
		return fragmentOf("fix.html", "check", &state, state.Done)
	})
}

// check returns the check that the address names, or nil.
func (p *fixPages) check(r *http.Request) *check {
	current := p.reading.reader.current()
	if current == nil {
		return nil
	}
	defer current.Release()
	return p.checks.find(current, r.PathValue("fault"), r.URL.Query().Get("jq"))
}
