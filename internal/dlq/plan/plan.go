// Package plan describes a replay that is checked before it runs. A plan says which
// dead-lettered messages are published again, with which correction, and which are removed.
// A journal beside the plan records each action, so that an interrupted plan continues
// where it stopped. The package accesses neither the queue nor the topic.
package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// Version is that of the form of a plan.
const Version = 1

// MaxBytes bounds the file of a plan and its journal. A plan of a million messages has
// about 50 MB.
const MaxBytes = 512 << 20

// Plan fixes the actions of a replay in advance.
type Plan struct {
	Version int `json:"version"`
	// ID is the replay_id of every message that the plan publishes.
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"created_at"`
	Queue     Queue     `json:"queue"`
	// Environment and ServicesDigest are those with which each event was checked.
	Environment    string `json:"environment"`
	ServicesDigest string `json:"services_digest"`
	MaxReplays     int    `json:"max_replays"`
	// Unchecked is set if the events were not checked.
	Unchecked bool    `json:"unchecked,omitempty"`
	Groups    []Group `json:"groups"`
	// Checksum is the SHA-256 of the plan without this field. It prevents that a person
	// edits a plan and applies actions that were never checked.
	Checksum string `json:"checksum"`
}

// Queue says from where to where a plan moves messages. The names are full.
type Queue struct {
	Project      string `json:"project"`
	Subscription string `json:"subscription"`
	Topic        string `json:"topic"`
}

// Group is a fault with what happens to its messages.
type Group struct {
	Fault   string `json:"fault"`
	Reason  string `json:"reason"`
	Service string `json:"service"`
	Detail  string `json:"detail"`
	Action  Action `json:"action"`
	JQ      string `json:"jq,omitempty"`
	// Matched is how many messages had the fault. Messages that are not in the Messages
	// field stay in the queue: Failing ones would be rejected again, and OverMaxReplays
	// were replayed too often.
	Matched        int `json:"matched"`
	Failing        int `json:"failing,omitempty"`
	OverMaxReplays int `json:"over_max_replays,omitempty"`
	// Messages are the ids of the messages in the queue, each with the id of the message
	// that was first published with the event.
	Messages map[string]string `json:"messages,omitempty"`
}

// Step returns the group's action.
func (g *Group) Step() Step { return Step{g.Action, g.JQ} }

// Seal sets the checksum.
func (p *Plan) Seal() error {
	sum, err := p.sum()
	p.Checksum = sum
	return err
}

func (p *Plan) sum() (string, error) {
	plain := *p
	plain.Checksum = ""
	text, err := json.Marshal(plain)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// Encode returns the plan as a file.
func (p *Plan) Encode() ([]byte, error) {
	text, err := json.MarshalIndent(p, "", " ")
	return append(text, '\n'), err
}

// Messages returns how many messages the plan acts on.
func (p *Plan) Messages() (n int) {
	for i := range p.Groups {
		n += len(p.Groups[i].Messages)
	}
	return n
}

// Publishes reports whether the plan publishes any message.
func (p *Plan) Publishes() bool {
	return slices.ContainsFunc(p.Groups, func(g Group) bool { return g.Action.Publishes() && len(g.Messages) > 0 })
}

// operationID matches the id that a replay makes for itself.
var operationID = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[a-z2-7]{6}$`)

// Parse reads the file of a plan, and lists what is wrong with it. compile returns what
// is wrong with an expression.
func Parse(text []byte, compile func(string) error) (*Plan, error) {
	var p Plan
	if err := jsonv2.Unmarshal(text, &p, jsonv2.RejectUnknownMembers(true)); err != nil {
		// The error may quote the file, because only the quoted place helps to correct it.
		return nil, fmt.Errorf("it is not a plan: %s", clipped(err.Error()))
	}
	if p.Version != Version {
		return nil, fmt.Errorf("it is a plan of version %d; this worker knows version %d", p.Version, Version)
	}
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !operationID.MatchString(p.ID) {
		wrong("id: expected that of an operation, got %s", clip(p.ID))
	}
	if p.CreatedAt.IsZero() {
		wrong("created_at: expected a time")
	}
	if p.Queue.Project == "" || p.Queue.Subscription == "" || p.Queue.Topic == "" {
		wrong("queue: expected a project, a subscription and a topic")
	}
	faults, messages := map[string]bool{}, map[string]bool{}
	for i := range p.Groups {
		g := &p.Groups[i]
		where := fmt.Sprintf("groups[%d]", i)
		if !fault.IsID(g.Fault) || faults[g.Fault] {
			wrong("%s: fault: expected an id that is there once, got %s", where, clip(g.Fault))
		}
		faults[g.Fault] = true
		if err := g.Step().check(compile); err != nil {
			wrong("%s: %w", where, err)
		}
		if g.Action == Keep && len(g.Messages) > 0 {
			wrong("%s: messages: expected none to keep", where)
		}
		for id := range g.Messages {
			if id == "" || messages[id] {
				wrong("%s: messages: expected ids that are there once, got %s", where, clip(id))
			}
			messages[id] = true
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	switch sum, err := p.sum(); {
	case err != nil:
		return nil, err
	case sum != p.Checksum:
		return nil, errors.New("it was changed after `worker dlq plan` wrote it: the checksum differs. Its actions now were never checked against the events; make a new plan")
	}
	return &p, nil
}

// clipped shortens an error.
func clipped(s string) string {
	const limit = 200
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return s
}

// CheckQueue returns why the plan is not for a queue.
func (p *Plan) CheckQueue(q Queue) error {
	var errs []error
	for _, c := range []struct{ variable, planned, now string }{
		{"GOOGLE_CLOUD_PROJECT", p.Queue.Project, q.Project},
		{"DLQ_SUBSCRIPTION", p.Queue.Subscription, q.Subscription},
		{"PUBSUB_TOPIC", p.Queue.Topic, q.Topic},
	} {
		if c.planned != c.now {
			errs = append(errs, fmt.Errorf("%s: the plan is for %s, expected that and got %s", c.variable, clip(c.planned), clip(c.now)))
		}
	}
	return errors.Join(errs...)
}

// CheckServices returns why the plan cannot be relied on with a services list and an
// environment.
func (p *Plan) CheckServices(environment, digest string) error {
	var errs []error
	if p.Environment != environment {
		errs = append(errs, fmt.Errorf("the plan's events were checked for the environment %s (ENVIRONMENT_ID), and it is %s now", clip(p.Environment), clip(environment)))
	}
	if p.ServicesDigest != digest {
		errs = append(errs, fmt.Errorf("the plan's events were checked with the services list %s, and it is %s now (WORKER_SERVICES)", clip(p.ServicesDigest), digest))
	}
	return errors.Join(errs...)
}

// CheckAge returns why the plan is too old: the queue keeps no message longer than its
// retention, so that every message of an older plan is gone.
func (p *Plan) CheckAge(now time.Time, retention time.Duration) error {
	if age := now.Sub(p.CreatedAt); age > retention {
		return fmt.Errorf("the plan is of %s: the queue keeps messages for %s only, and the plan's are gone; make a new one", p.CreatedAt.UTC().Format(time.RFC3339), days(retention))
	}
	return nil
}

func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

// Sort puts the groups into the order in which they are printed: the largest first.
func (p *Plan) Sort() {
	slices.SortFunc(p.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Matched, a.Matched), cmp.Compare(a.Fault, b.Fault))
	})
}
