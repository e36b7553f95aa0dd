package dlqui

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"net/url"
	"sync"
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
	// maxReplays excludes events that were replayed so often before, as `dlq plan` does.
	maxReplays = 3
	// maxExpression bounds a jq expression, in bytes.
	maxExpression = 16 << 10
	// maxChecks is how many checks on all events are kept.
	maxChecks = 20
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
		body.Samples = s.trySamples(r.Context(), body.JQ, messages)
		if query.Get("all") != "" && body.Samples.Wrong == "" {
			state := s.checkAll(current, f.ID, body.JQ)
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
		part, err := fragmentOf("fix.html", "samples", s.trySamples(r.Context(), r.URL.Query().Get("jq"), messages), true)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(part.html) // the browser may have gone
	})
}

// compile compiles an expression of a form.
func compile(jq string) (*dlq.Fix, string) {
	if len(jq) > maxExpression {
		return nil, "The expression is longer than 16 KiB."
	}
	fix, err := dlq.CompileFix(jq)
	if err != nil {
		return nil, "Expected a jq expression: " + err.Error()
	}
	fix.Name = "jq"
	return fix, ""
}

// trySamples tries the fix on some events.
func (s *Server) trySamples(ctx context.Context, jq string, messages []*dlq.Stored) samplesBody {
	fix, wrong := compile(jq)
	if wrong != "" {
		return samplesBody{Wrong: wrong}
	}
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	t := trial.New(fix, s.queue.Check, maxReplays)
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

// checkKey identifies a check on all events of a fault.
type checkKey struct{ fault, jq string }

// check is a fix that is tried on all events of a fault in the background.
type check struct {
	finished chan struct{}

	mu    sync.Mutex // guards state
	state checkState
}

// checkState is how far a check is. It has no more than a trial counts.
type checkState struct {
	Total, Tried, Passed, Failed, TooOften, Unchanged int
	Done                                              bool
	Error                                             string
	Causes                                            []trial.Cause
	Changes                                           []dlq.ChangeCount
}

// Loses reports whether data disappears.
func (c checkState) Loses() (n int) {
	for _, change := range c.Changes {
		if change.Loses {
			n = max(n, change.Count)
		}
	}
	return n
}

// checkAll begins a check on all events, unless it was begun before, and returns how far
// it is. It waits a moment for one that is quick.
func (s *Server) checkAll(current *spool.Spool, fault, jq string) checkState {
	key := checkKey{fault, jq}
	s.mu.Lock()
	c := s.checks[key]
	if c == nil && current.Hold() {
		c = &check{finished: make(chan struct{}), state: checkState{Total: len(current.Of(fault))}}
		s.checks[key] = c
		if s.checked = append(s.checked, key); len(s.checked) > maxChecks {
			delete(s.checks, s.checked[0])
			s.checked = s.checked[1:]
		}
		s.work.Go(func() {
			defer current.Release()
			defer close(c.finished)
			s.runCheck(c, current, key)
		})
	}
	s.mu.Unlock()
	if c == nil {
		return checkState{Done: true, Error: "the queue was read again meanwhile"}
	}
	select {
	case <-c.finished:
	case <-time.After(quickly):
	}
	return c.snapshot()
}

func (c *check) snapshot() checkState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// publishEvery is after how many events a check shows its numbers.
const publishEvery = 500

func (s *Server) runCheck(c *check, current *spool.Spool, key checkKey) {
	fix, wrong := compile(key.jq)
	if wrong != "" {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.state = checkState{Done: true, Error: wrong}
		return
	}
	t := trial.New(fix, s.queue.Check, maxReplays)
	show := func(done bool, err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.state = checkState{
			Total: c.state.Total, Tried: t.Tried, Passed: t.Passed, Failed: t.Failed, TooOften: t.TooOften, Unchanged: t.Changes.Unchanged,
			Done: done, Causes: t.Causes(), Changes: t.Changes.Counts(),
		}
		if err != nil {
			c.state.Error = err.Error()
		}
	}
	err := current.Each(s.ctx, current.Of(key.fault), func(m *dlq.Stored) error {
		_, err := t.Try(s.ctx, m)
		if t.Tried%publishEvery == 0 {
			show(false, nil)
		}
		return err
	})
	show(true, err)
}

func (s *Server) checkLive(w http.ResponseWriter, r *http.Request) {
	key := checkKey{r.PathValue("fault"), r.URL.Query().Get("jq")}
	s.mu.Lock()
	c := s.checks[key]
	s.mu.Unlock()
	s.stream(w, r, func() (fragment, error) {
		state := checkState{Done: true, Error: "the queue was read again meanwhile: load the page again"}
		if c != nil {
			state = c.snapshot()
		}
		return fragmentOf("fix.html", "check", &state, state.Done)
	})
}
