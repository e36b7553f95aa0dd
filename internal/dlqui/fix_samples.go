package dlqui

import (
	"bytes"
	"context"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/trial"
)

const (
	// fixSamples is how many events show a fix while it is typed, and sampleTimeout how
	// long that may take.
	fixSamples    = 5
	sampleTimeout = 5 * time.Second
)

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
