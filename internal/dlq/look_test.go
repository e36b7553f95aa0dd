package dlq

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

const (
	viewSub  = "projects/p/subscriptions/events-dlq-view"
	viewSnap = "projects/p/snapshots/events-dlq-view-look"
)

// newViewEnv returns a queueEnv with a view.
func newViewEnv(t *testing.T) *queueEnv {
	t.Helper()
	e := newQueueEnv(t)
	e.must(e.CreateSubscription(viewSub, dlqTopic))
	return e
}

// publishMessages publishes n messages to the dead-letter topic, and returns their ids.
func (e *queueEnv) publishMessages(n int) []string {
	e.t.Helper()
	messages := make([]*pubsubpb.PubsubMessage, n)
	for i := range messages {
		messages[i] = &pubsubpb.PubsubMessage{Data: []byte(strconv.Itoa(i))}
	}
	ids, err := e.Publish(dlqTopic, messages...)
	e.must(err)
	return ids
}

func (e *queueEnv) look() (*Look, error) {
	return OpenLook(e.t.Context(), dlqSub, viewSub, e.options()...)
}

// read returns the ids of all messages that a subscription shows.
func (e *queueEnv) read(sub Subscription) (ids []string) {
	e.t.Helper()
	q := Open(sub, QueueOptions{WaitingPull: 60 * time.Millisecond})
	for {
		messages, err := q.Next(e.t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		e.must(err)
		for _, m := range messages {
			ids = append(ids, m.GetMessageId())
		}
	}
	e.must(q.Close())
	slices.Sort(ids)
	return ids
}

// TestLookShowsTheQueueWithoutLeases: a look shows all messages in the queue, including
// those that another command has leased. It takes no lease, and leaves no snapshot.
func TestLookShowsTheQueueWithoutLeases(t *testing.T) {
	e := newViewEnv(t)
	ids := e.publishMessages(5)
	oncall := e.open(QueueOptions{MaxMessages: 3})
	leased, err := oncall.Next(t.Context())
	e.must(err)
	before := e.Stats(dlqSub)

	l, err := e.look()
	e.must(err)
	if got := e.read(l); !slices.Equal(got, ids) {
		t.Errorf("it shows %q, want %q", got, ids)
	}
	if after := e.Stats(dlqSub); after != before || l.Doubt() != "" {
		t.Errorf("the queue is %+v, was %+v; doubt: %q", after, before, l.Doubt())
	}
	if err := l.Acknowledge(t.Context(), []string{"x"}); err == nil {
		t.Error("it acknowledges")
	}
	e.must(l.CloseLook())
	if n := len(e.Snapshots()); n != 0 {
		t.Errorf("%d snapshots are left", n)
	}

	// A later look shows the later state.
	e.must(oncall.Remove(t.Context(), []string{leased[0].GetMessageId()}))
	left := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == leased[0].GetMessageId() })
	l, err = e.look()
	e.must(err)
	if got := e.read(l); !slices.Equal(got, left) {
		t.Errorf("the second shows %q, want %q", got, left)
	}
	e.must(l.CloseLook())
}

// TestLookIsRefused has every case in which OpenLook fails. It must then change nothing and
// leave no snapshot.
func TestLookIsRefused(t *testing.T) {
	denied := status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
	for name, c := range map[string]struct {
		change func(*queueEnv)
		fault  map[string]error
		want   string
	}{
		"an old message":        {change: func(e *queueEnv) { e.AgeMessages(6*24*time.Hour + 23*time.Hour + time.Minute) }, want: "its oldest message is seven days old, or almost"},
		"no permission to make": {fault: map[string]error{"CreateSnapshot": denied}, want: "you may not make snapshots"},
		"no permission to seek": {fault: map[string]error{"Seek": denied}, want: "you may not use snapshots"},
		"a look is running":     {change: func(e *queueEnv) { e.snapshot(time.Now().Add(-29 * time.Minute)) }, want: "another process looks at it just now"},
		"no time of the other":  {change: func(e *queueEnv) { e.snapshot(time.Time{}) }, want: "another process looks at it just now"},
		"an unreadable other": {
			change: func(e *queueEnv) { e.snapshot(time.Now().Add(-31 * time.Minute)) }, fault: map[string]error{"GetSnapshot": denied},
			want: "another process looks at it just now",
		},
		"an outage": {fault: map[string]error{"CreateSnapshot": status.Error(codes.Unavailable, "unavailable")}, want: "Pub/Sub made no snapshot: "},
	} {
		t.Run(name, func(t *testing.T) {
			e := newViewEnv(t)
			e.publishMessages(1)
			if c.change != nil {
				c.change(e)
			}
			before := len(e.Snapshots())
			e.SetFault(func(method string, _ any) error { return c.fault[method] })
			_, err := e.look()
			refused, ok := errors.AsType[*LookError](err)
			if !ok || !strings.HasPrefix(refused.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if after := len(e.Snapshots()); after != before {
				t.Errorf("%d snapshots, were %d", after, before)
			}
		})
	}
	t.Run("no view", func(t *testing.T) {
		e := newQueueEnv(t)
		if _, err := e.look(); err == nil || !strings.HasPrefix(err.Error(), "DLQ_VIEW_SUBSCRIPTION does not exist") || len(e.Snapshots()) != 0 {
			t.Errorf("%v, and %d snapshots", err, len(e.Snapshots()))
		}
	})
	t.Run("a view of another topic", func(t *testing.T) {
		e := newQueueEnv(t)
		e.must(e.CreateSubscription(viewSub, mainTopic))
		if _, err := e.look(); err == nil || !strings.HasPrefix(err.Error(), "DLQ_VIEW_SUBSCRIPTION is no subscription of the dead-letter topic") || len(e.Snapshots()) != 0 {
			t.Errorf("%v, and %d snapshots", err, len(e.Snapshots()))
		}
	})
}

// snapshot makes the snapshot of another look that began at the given time. For a zero time
// the snapshot has no creation time.
func (e *queueEnv) snapshot(created time.Time) {
	e.t.Helper()
	client, err := NewClient(e.t.Context(), viewSub, e.options()...)
	e.must(err)
	defer client.Close()
	labels := map[string]string{}
	if !created.IsZero() {
		labels[createdLabel] = strconv.FormatInt(created.Unix(), 10)
	}
	_, err = client.client.CreateSnapshot(e.t.Context(), &pubsubpb.CreateSnapshotRequest{Name: viewSnap, Subscription: dlqSub, Labels: labels})
	e.must(err)
}

// TestOldSnapshotOfAKilledCommandIsReplaced has snapshots that look old by either clock.
func TestOldSnapshotOfAKilledCommandIsReplaced(t *testing.T) {
	for _, age := range []time.Duration{31 * time.Minute, -31 * time.Minute, 6 * 24 * time.Hour} {
		e := newViewEnv(t)
		e.snapshot(time.Now().Add(-age))
		ids := e.publishMessages(2)
		l, err := e.look()
		e.must(err)
		if got := e.read(l); !slices.Equal(got, ids) {
			t.Errorf("age %v: it shows %q, want %q", age, got, ids)
		}
		e.must(l.CloseLook())
	}
}

func TestSecondLookAtTheSameTimeIsRefused(t *testing.T) {
	e := newViewEnv(t)
	e.publishMessages(1)
	first, err := e.look()
	e.must(err)
	if _, err := e.look(); err == nil || !strings.HasPrefix(err.Error(), "another process looks") {
		t.Errorf("the second: %v", err)
	}
	e.must(first.CloseLook())
	third, err := e.look()
	e.must(err)
	e.must(third.CloseLook())
}

// TestInterruptedLookLeavesNoSnapshot interrupts each request of OpenLook.
func TestInterruptedLookLeavesNoSnapshot(t *testing.T) {
	for _, method := range []string{"CreateSnapshot", "Seek"} {
		e := newViewEnv(t)
		e.publishMessages(1)
		ctx, cancel := context.WithCancel(t.Context())
		var asked atomic.Bool
		e.SetFault(func(m string, _ any) error {
			if m == method {
				asked.Store(true)
				cancel()
				return pubsubserver.AnswerAfter(100 * time.Millisecond)
			}
			return nil
		})
		l, err := OpenLook(ctx, dlqSub, viewSub, e.options()...)
		if err == nil {
			err = l.CloseLook()
		}
		if !asked.Load() || len(e.Snapshots()) != 0 {
			t.Errorf("%s: asked %v, %v, and %d snapshots", method, asked.Load(), err, len(e.Snapshots()))
		}
	}
}

func TestLookDoubtsAViewYoungerThanTheMessages(t *testing.T) {
	e := newQueueEnv(t)
	e.publishMessages(1)
	e.must(e.CreateSubscription(viewSub, dlqTopic))
	for name, c := range map[string]struct {
		age   time.Duration
		doubt bool
	}{
		"within the error": {time.Minute, false},
		"an hour":          {time.Hour, true},
	} {
		e.AgeMessages(c.age)
		l, err := e.look()
		e.must(err)
		if got := e.read(l); len(got) != 0 {
			t.Fatalf("%s: it shows %q", name, got)
		}
		if got := l.Doubt(); (got != "") != c.doubt {
			t.Errorf("%s: %q", name, got)
		}
		e.must(l.CloseLook())
	}
}

func TestSnapshotThatStaysIsReported(t *testing.T) {
	e := newViewEnv(t)
	l, err := e.look()
	e.must(err)
	e.SetFault(func(method string, _ any) error {
		if method == "DeleteSnapshot" {
			return status.Error(codes.PermissionDenied, "no")
		}
		return nil
	})
	if err := l.CloseLook(); err == nil || !strings.Contains(err.Error(), viewSnap+" was not deleted") {
		t.Errorf("got %v", err)
	}
}

func TestSnapshotNameFitsPubSub(t *testing.T) {
	if got := snapshotName(viewSub); got != viewSnap {
		t.Errorf("got %s", got)
	}
	if _, id, _ := strings.Cut(snapshotName("projects/p/subscriptions/"+strings.Repeat("v", 255)), "/snapshots/"); len(id) != 255 {
		t.Errorf("%d characters", len(id))
	}
}
