package provision

import (
	"context"
	"fmt"
	"slices"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Action is the action of a step on a resource.
type Action string

const (
	// Create creates a missing resource.
	Create Action = "create"
	// Change changes settings to those that the worker needs.
	Change Action = "change"
	// Keep leaves a resource that is right or cannot be changed.
	Keep Action = "keep"
)

// Difference is one setting that is, or would be, changed.
type Difference struct {
	Setting string `json:"setting"`
	From    string `json:"from,omitempty"` // empty when the resource is new
	To      string `json:"to"`

	setting Setting
	was     Judgement
}

// Obstacle is one bad setting that cannot be changed.
type Obstacle struct {
	Setting     string  `json:"setting"`
	Is          string  `json:"is"`
	Status      Verdict `json:"status"`
	Consequence string  `json:"consequence"`
	// Do is advice for a person.
	Do string `json:"do"`
}

// Step is the action on one resource.
type Step struct {
	Action      Action       `json:"action"`
	Kind        string       `json:"kind"` // topic or subscription
	Name        string       `json:"name"`
	Differences []Difference `json:"differences"`
	Obstacles   []Obstacle   `json:"obstacles"`

	// wanted is the subscription after the step.
	wanted *pubsubpb.Subscription
}

// Reader is the part of Admin that a plan needs.
type Reader interface {
	Topic(ctx context.Context, name string) (*pubsubpb.Topic, error)
	Subscription(ctx context.Context, name string) (*pubsubpb.Subscription, error)
}

// Writer is the part of Admin that applying a plan needs.
type Writer interface {
	CreateTopic(ctx context.Context, name string) error
	CreateSubscription(ctx context.Context, s *pubsubpb.Subscription) error
	UpdateSubscription(ctx context.Context, s *pubsubpb.Subscription, paths ...string) error
}

// Plan compares the resources with the worker's needs. The order of the steps matters: the
// dead-letter topic gets its subscription before anything can be published, because Pub/Sub
// drops messages of a topic without one.
func Plan(ctx context.Context, r Reader, n Needs) ([]Step, error) {
	var steps []Step
	for _, next := range []struct {
		name string
		plan func(name string) (Step, error)
	}{
		{n.DeadLetterTopic, func(name string) (Step, error) { return planTopic(ctx, r, name) }},
		{n.DeadLetterSubscription, func(name string) (Step, error) {
			return planSubscription(ctx, r, n, name, n.DeadLetterTopic, DeadLetterSettings())
		}},
		{n.DeadLetterView, func(name string) (Step, error) {
			return planSubscription(ctx, r, n, name, n.DeadLetterTopic, ViewSettings())
		}},
		{n.ReceiptsTopic, func(name string) (Step, error) { return planTopic(ctx, r, name) }},
		{n.receipts(), func(name string) (Step, error) {
			return planSubscription(ctx, r, n, name, n.ReceiptsTopic, ReceiptSettings())
		}},
		{n.Topic, func(name string) (Step, error) { return planTopic(ctx, r, name) }},
		{n.Subscription, func(name string) (Step, error) {
			return planSubscription(ctx, r, n, name, n.Topic, SubscriptionSettings())
		}},
	} {
		if next.name == "" {
			continue
		}
		step, err := next.plan(next.name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// receipts is the subscription of receipts, if its topic is known.
func (n Needs) receipts() string {
	if n.ReceiptsTopic == "" {
		return ""
	}
	return n.ReceiptsSubscription
}

func planTopic(ctx context.Context, r Reader, name string) (Step, error) {
	step := Step{Action: Keep, Kind: "topic", Name: name, Differences: []Difference{}, Obstacles: []Obstacle{}}
	_, err := r.Topic(ctx, name)
	switch status.Code(err) {
	case codes.OK:
	case codes.NotFound:
		step.Action = Create
	default:
		return step, fmt.Errorf("read the topic %s: %w", name, err)
	}
	return step, nil
}

func planSubscription(ctx context.Context, r Reader, n Needs, name, topic string, settings []Setting) (Step, error) {
	step := Step{Action: Keep, Kind: "subscription", Name: name, Differences: []Difference{}, Obstacles: []Obstacle{}}
	got, err := r.Subscription(ctx, name)
	switch status.Code(err) {
	case codes.OK:
		step.wanted = proto.CloneOf(got)
	case codes.NotFound:
		step.Action = Create
		step.wanted = &pubsubpb.Subscription{Name: name, Topic: topic}
	default:
		return step, fmt.Errorf("read the subscription %s: %w", name, err)
	}
	for _, s := range settings {
		if step.Action == Create {
			if s.Set != nil {
				s.Set(step.wanted, n)
			}
			if s.Set != nil || s.Name == topicName {
				step.Differences = append(step.Differences, Difference{Setting: s.Name, To: s.Judge(step.wanted, n).Is})
			}
			continue
		}
		was := s.Judge(got, n)
		switch {
		case was.Verdict != Warning && was.Verdict != Failure:
		case s.Changeable(got):
			s.repair(step.wanted, n)
			step.Action = Change
			step.Differences = append(step.Differences, Difference{Setting: s.Name, From: was.Is, To: s.Judge(step.wanted, n).Is, setting: s, was: was})
		default:
			step.Obstacles = append(step.Obstacles, Obstacle{s.Name, was.Is, was.Verdict, was.Consequence, s.Do})
		}
	}
	return step, nil
}

// repair gives the setting the value that the worker needs: that of Set, or none.
func (s Setting) repair(sub *pubsubpb.Subscription, n Needs) {
	if s.Set != nil {
		s.Set(sub, n)
		return
	}
	m := sub.ProtoReflect()
	m.Clear(m.Descriptor().Fields().ByTextName(s.Path))
}

// Changes counts the steps that do something.
func Changes(steps []Step) (n int) {
	for _, s := range steps {
		if s.Action != Keep {
			n++
		}
	}
	return n
}

// Stuck reports whether a setting loses events and no plan can change it.
func Stuck(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool {
		return slices.ContainsFunc(s.Obstacles, func(o Obstacle) bool { return o.Status == Failure })
	})
}

// Apply does the steps, and returns those that it did with their results. It ends at the
// first step that fails. It creates no topic to publish to as long as rejected events
// would be lost.
func Apply(ctx context.Context, w Writer, n Needs, steps []Step) (done []Step, err error) {
	for i, s := range steps {
		if s.Action == Create && Stuck(steps[:i]) {
			return done, fmt.Errorf("the %s %s is not created before %s is repaired: rejected events would be lost", s.Kind, s.Name, n.DeadLetterSubscription)
		}
		if s, err = s.apply(ctx, w, n); err != nil {
			return done, fmt.Errorf("%s the %s %s: %w", s.Action, s.Kind, s.Name, err)
		}
		done = append(done, s)
	}
	return done, nil
}

// apply does the step, and returns it with its result.
func (s Step) apply(ctx context.Context, w Writer, n Needs) (Step, error) {
	var err error
	switch {
	case s.Action == Keep:
	case s.Kind == "topic":
		err = w.CreateTopic(ctx, s.Name)
	case s.Action == Create:
		err = w.CreateSubscription(ctx, s.wanted)
		if n.Emulator && status.Code(err) == codes.InvalidArgument && s.clip() {
			err = w.CreateSubscription(ctx, s.wanted)
		}
	case n.Emulator:
		return s.changeByOne(ctx, w)
	default:
		var paths []string
		for _, d := range s.Differences {
			paths = append(paths, d.setting.Path)
		}
		err = w.UpdateSubscription(ctx, s.wanted, paths...)
	}
	if status.Code(err) == codes.AlreadyExists {
		err = fmt.Errorf("it was created by another process meanwhile; run this again to see its settings: %w", err)
	}
	return s, err
}

// changeByOne changes one setting after the other, because emulators refuse some.
func (s Step) changeByOne(ctx context.Context, w Writer) (Step, error) {
	did := s
	did.Action, did.Differences, did.Obstacles = Keep, []Difference{}, slices.Clone(s.Obstacles)
	for _, d := range s.Differences {
		err := w.UpdateSubscription(ctx, s.wanted, d.setting.Path)
		if status.Code(err) == codes.InvalidArgument && d.Setting == retentionName && s.clip() {
			d.To = clippedRetention
			err = w.UpdateSubscription(ctx, s.wanted, d.setting.Path)
		}
		switch status.Code(err) {
		case codes.OK:
			did.Action, did.Differences = Change, append(did.Differences, d)
		case codes.InvalidArgument, codes.Unimplemented:
			did.Obstacles = append(did.Obstacles, Obstacle{d.Setting, d.was.Is, d.was.Verdict, d.was.Consequence, "this emulator cannot change it: delete it, and run this again"})
		default:
			return did, err
		}
	}
	return did, nil
}

// clip reduces a setting to an emulator's maximum, and reports whether it was above.
func (s Step) clip() bool {
	if retention(s.wanted) <= emulatorRetention {
		return false
	}
	s.wanted.MessageRetentionDuration = durationpb.New(emulatorRetention)
	for i, d := range s.Differences {
		if d.Setting == retentionName {
			s.Differences[i].To = clippedRetention
		}
	}
	return true
}
