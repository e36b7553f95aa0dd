package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var created = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

func queue() Queue {
	return Queue{"p", "projects/p/subscriptions/dlq", "projects/p/topics/events"}
}

// example returns a plan for five messages.
func example(t *testing.T) *Plan {
	t.Helper()
	p := &Plan{
		Version: Version, ID: "20261120T100000Z-abc234", CreatedAt: created, Queue: queue(), Environment: "prod", ServicesDigest: "a87bd7cb9d9a", MaxReplays: 3,
		Groups: []Group{
			{Fault: "F-7c3a91", Reason: "invalid_event", Service: "sams", Detail: "d", Action: Fix, JQ: ".", Matched: 4, Failing: 1, Messages: map[string]string{"1": "o1", "2": "o2", "3": "o3"}},
			{Fault: "F-11aa22", Reason: "oversized", Service: "sams", Detail: "d", Action: Purge, Matched: 2, Messages: map[string]string{"4": "o4", "5": "o5"}},
			{Fault: "F-33bb44", Reason: "oversized", Service: "cody", Detail: "d", Action: Keep, Matched: 7},
		},
	}
	if err := p.Seal(); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPlanSurvivesEncoding(t *testing.T) {
	want := example(t)
	text, err := want.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(text, compile)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if got.Messages() != 5 {
		t.Errorf("%d messages", got.Messages())
	}
}

// TestParseRefusesAChangedPlan has plans that were edited. Parse must refuse
// their content even if the checksum was computed again.
func TestParseRefusesAChangedPlan(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Plan)
		text   func(string) string
		want   string
	}{
		"not JSON":              {text: func(s string) string { return s[:len(s)/2] }, want: "it is not a plan"},
		"nothing":               {text: func(string) string { return "" }, want: "it is not a plan"},
		"another file":          {text: func(string) string { return `{"name":"x"}` }, want: "it is not a plan"},
		"an unknown field":      {text: func(s string) string { return strings.Replace(s, `"id"`, `"x":1,"id"`, 1) }, want: "it is not a plan"},
		"a field twice":         {text: func(s string) string { return strings.Replace(s, `"id"`, `"id":"x","id"`, 1) }, want: "it is not a plan"},
		"two":                   {text: func(s string) string { return s + s }, want: "it is not a plan"},
		"another type":          {text: func(s string) string { return strings.Replace(s, `"version": 1`, `"version": "1"`, 1) }, want: "it is not a plan"},
		"another version":       {text: func(s string) string { return strings.Replace(s, `"version": 1`, `"version": 2`, 1) }, want: "a plan of version 2"},
		"another message":       {text: func(s string) string { return strings.Replace(s, `"1": "o1"`, `"9": "o1"`, 1) }, want: "the checksum differs"},
		"another expression":    {text: func(s string) string { return strings.Replace(s, `"jq": "."`, `"jq": ".x"`, 1) }, want: "the checksum differs"},
		"no id":                 {change: func(p *Plan) { p.ID = "" }, want: "id: expected that of an operation"},
		"an id with an escape":  {change: func(p *Plan) { p.ID = "\x1b[2J" }, want: `id: expected that of an operation, got "\x1b[2J"`},
		"no time":               {change: func(p *Plan) { p.CreatedAt = time.Time{} }, want: "created_at"},
		"no queue":              {change: func(p *Plan) { p.Queue.Topic = "" }, want: "queue: expected"},
		"no fault":              {change: func(p *Plan) { p.Groups[0].Fault = "" }, want: "groups[0]: fault"},
		"a fault twice":         {change: func(p *Plan) { p.Groups[1].Fault = "F-7c3a91" }, want: "groups[1]: fault"},
		"an unknown action":     {change: func(p *Plan) { p.Groups[0].Action = "delete" }, want: "groups[0]: expected replay"},
		"a bad expression":      {change: func(p *Plan) { p.Groups[0].JQ = "bad" }, want: "groups[0]: jq: expected"},
		"no expression":         {change: func(p *Plan) { p.Groups[0].JQ = "" }, want: "groups[0]: jq: expected"},
		"a needless expression": {change: func(p *Plan) { p.Groups[1].JQ = "." }, want: "groups[1]: purge: expected no expression"},
		"a message twice":       {change: func(p *Plan) { p.Groups[1].Messages["1"] = "o" }, want: "groups[1]: messages"},
		"messages to keep":      {change: func(p *Plan) { p.Groups[2].Messages = map[string]string{"7": "o7"} }, want: "groups[2]: messages: expected none"},
	} {
		t.Run(name, func(t *testing.T) {
			p := example(t)
			if c.change != nil {
				c.change(p)
				if err := p.Seal(); err != nil {
					t.Fatal(err)
				}
			}
			text, err := p.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if c.text != nil {
				text = []byte(c.text(string(text)))
			}
			if _, err := Parse(text, compile); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestPlanIsRefusedForAnotherQueueListOrAge(t *testing.T) {
	p := example(t)
	other := queue()
	other.Subscription, other.Topic = "projects/p/subscriptions/x", "projects/p/topics/y"
	const month = 31 * 24 * time.Hour
	for _, c := range []struct {
		name string
		err  error
		want []string
	}{
		{"the same queue", p.CheckQueue(queue()), nil},
		{"another queue", p.CheckQueue(other), []string{`DLQ_SUBSCRIPTION: the plan is for "projects/p/subscriptions/dlq", expected that and got "projects/p/subscriptions/x"`, "PUBSUB_TOPIC: "}},
		{"the same list", p.CheckServices("prod", "a87bd7cb9d9a"), nil},
		{"another list", p.CheckServices("prod", "x"), []string{`checked with the services list "a87bd7cb9d9a", and it is x now (WORKER_SERVICES)`}},
		{"another environment", p.CheckServices("dev", "a87bd7cb9d9a"), []string{"ENVIRONMENT_ID"}},
		{"as old as the queue keeps messages", p.CheckAge(created.Add(month), month), nil},
		{"older", p.CheckAge(created.Add(month+1), month), []string{"the plan is of 2026-11-20T10:00:00Z: the queue keeps messages for 31 days only"}},
		{"older than a short retention", p.CheckAge(created.Add(time.Hour), 10*time.Minute), []string{"for 10m0s only"}},
	} {
		if c.want == nil && c.err != nil {
			t.Errorf("%s: %v", c.name, c.err)
		}
		for _, part := range c.want {
			if c.err == nil || !strings.Contains(c.err.Error(), part) {
				t.Errorf("%s: got %v, want %q", c.name, c.err, part)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"version":1}`)
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := Parse([]byte(text), compile); err == nil && p.ID == "" {
			t.Error("a plan without an id")
		}
	})
}
