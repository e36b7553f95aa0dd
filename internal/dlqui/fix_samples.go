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
	// fixSamples is the number of events on which a fix is tried while it is typed.
	// sampleTimeout bounds all these trials, because an expression may loop for ever.
	fixSamples    = 5
	sampleTimeout = 5 * time.Second
)

// samplesBody shows a fix on some events.
type samplesBody struct {
	Wrong   string // why the expression is refused; empty if it is not
	Samples []fixed
}

// fixed is an event before and after a fix.
type fixed struct {
	Link, Name string
	Why        string // why it would be rejected again; empty if it passes
	Rows       []diffRow
	Hidden     bool // private values are hidden on both sides
}

// trySamples tries a fix on some events with the worker's own check.
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

// sorted returns the data with the keys of objects in the order in which jq writes them.
// Otherwise the order would differ where the fix changes nothing.
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
