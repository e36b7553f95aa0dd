package dlqui

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/trial"
)

const (
	// fixSamples is how many events show a fix while it is typed, and sampleTimeout how
	// long that may take.
	fixSamples    = 5
	sampleTimeout = 5 * time.Second
	// quickly is how long a page waits for a check that may be done at once.
	quickly = 60 * time.Millisecond
)

// fixBody is the data of the page of a fix.
type fixBody struct {
	*dlq.FaultCount
	JQ, Suggested string
	Samples       samplesBody
	Check         *checkState // nil: not asked for
	Remedies      remedies
}

// samplesBody is the fix on some events.
type samplesBody struct {
	Wrong   string // why the expression is none
	Samples []fixed
}

// fixed is an event before and after a fix.
type fixed struct {
	Link, Name string
	Why        string // why it would be rejected again; empty if it passes
	Rows       []diffRow
	Hidden     bool // parts are hidden
}

func (s *Server) fixPage(w http.ResponseWriter, r *http.Request) {
	s.withFault(w, r, func(current *spool.Spool, f *dlq.FaultCount) {
		messages, err := samples(r, current, f.ID, fixSamples)
		if err != nil || len(messages) == 0 {
			refuse(w, http.StatusInternalServerError, "The samples cannot be read.")
			return
		}
		query := r.URL.Query()
		body := fixBody{FaultCount: f, Suggested: dlq.SuggestFix(messages[0]), Remedies: s.remedies(f.ID)}
		body.JQ = cmp.Or(query.Get("jq"), body.Remedies.Chosen.JQ, body.Suggested)
		p := s.page("Fix of "+f.ID, "faults")
		p.Command = shell("replay", "--fault", f.ID, "--jq", body.JQ, "--dry-run")
		body.Samples = trySamples(r.Context(), s.queue.Check, body.JQ, messages)
		if query.Get("all") != "" && body.Samples.Wrong == "" {
			state := replacedState
			if c := s.checks.begin(current, f.ID, body.JQ); c != nil {
				c.wait(r.Context(), quickly)
				state = c.snapshot()
			}
			body.Check = &state
			if !state.Done {
				p.Live = "/faults/" + f.ID + "/fix/live?" + url.Values{"jq": {body.JQ}}.Encode()
			}
		}
		p.Body = body
		render(w, http.StatusOK, "fix.html", p)
	})
}

// fixSamples is the part of the page that follows what is typed.
func (s *Server) fixSamples(w http.ResponseWriter, r *http.Request) {
	s.withFault(w, r, func(current *spool.Spool, f *dlq.FaultCount) {
		messages, err := samples(r, current, f.ID, fixSamples)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		part, err := fragmentOf("fix.html", "samples", trySamples(r.Context(), s.queue.Check, r.URL.Query().Get("jq"), messages), true)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(part.html) // the browser may have gone
	})
}

// trySamples tries the fix on some events.
func trySamples(ctx context.Context, of eventCheck, jq string, messages []*dlq.Stored) samplesBody {
	fix, wrong := compile(jq)
	if wrong != "" {
		return samplesBody{Wrong: wrong}
	}
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	t := trial.New(fix, of, maxReplays)
	var body samplesBody
	for _, m := range messages {
		f := fixed{Link: eventPath(m.ID), Name: dlq.SampleID(m)}
		before := dlq.ViewOf(m, false)
		outcome, err := t.Try(ctx, m)
		if err != nil {
			body.Wrong = "The expression takes too long on the samples."
			return body
		}
		f.Why = outcome.Why
		f.Hidden = before.HiddenBytes > 0
		old := sorted(before)
		if outcome.After != nil {
			f.Rows = diff(old, sorted(dlq.ViewOfData(outcome.After, false)))
		} else {
			f.Rows = diff(old, old)
		}
		body.Samples = append(body.Samples, f)
	}
	return body
}

// sorted returns the data with the keys of objects in the order in which jq writes them,
// so that only what a fix changes differs.
func sorted(v dlq.View) string {
	if v.Object != nil {
		object := jsontext.Value(bytes.Clone(v.Object))
		if object.Format(jsontext.AllowDuplicateNames(true), jsontext.CanonicalizeRawInts(false), jsontext.CanonicalizeRawFloats(false),
			jsontext.PreserveRawStrings(true), jsontext.ReorderRawObjects(true)) == nil {
			v.Object = object
		}
	}
	return v.Clip(maxData)
}

// replacedState is shown in the place of a check whose spool was replaced.
var replacedState = checkState{Done: true, Error: "the queue was read again meanwhile: load the page again"}

func (s *Server) checkLive(w http.ResponseWriter, r *http.Request) {
	c := s.runningCheck(r)
	s.stream(w, r, func() (fragment, error) {
		state := replacedState
		if c != nil {
			state = c.snapshot()
		}
		return fragmentOf("fix.html", "check", &state, state.Done)
	})
}

// runningCheck returns the check that the address names, or nil.
func (s *Server) runningCheck(r *http.Request) *check {
	current := s.reader.current()
	if current == nil {
		return nil
	}
	defer current.Release()
	return s.checks.find(current, r.PathValue("fault"), r.URL.Query().Get("jq"))
}
