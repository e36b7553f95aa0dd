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

// newViewHall is a hall with a view.
func newViewHall(t *testing.T) *hall {
	t.Helper()
	h := newHall(t)
	h.must(h.CreateSubscription(viewSub, dlqTopic))
	return h
}

func (h *hall) letters(n int) []string {
	h.t.Helper()
	messages := make([]*pubsubpb.PubsubMessage, n)
	for i := range messages {
		messages[i] = &pubsubpb.PubsubMessage{Data: []byte(strconv.Itoa(i))}
	}
	ids, err := h.Publish(dlqTopic, messages...)
	h.must(err)
	return ids
}

func (h *hall) look() (*Look, error) {
	return OpenLook(h.t.Context(), dlqSub, viewSub, h.options()...)
}

// read returns the ids of all messages that a subscription shows.
func (h *hall) read(sub Subscription) (ids []string) {
	h.t.Helper()
	q := Open(sub, QueueOptions{WaitingPull: 60 * time.Millisecond})
	for {
		messages, err := q.Next(h.t.Context())
		if errors.Is(err, io.EOF) {
			break
		}
		h.must(err)
		for _, m := range messages {
			ids = append(ids, m.GetMessageId())
		}
	}
	h.must(q.Close())
	slices.Sort(ids)
	return ids
}

// TestLook: a look shows all that is in the queue, what somebody else has leased, too; it
// takes no lease, and leaves no snapshot.
func TestLook(t *testing.T) {
	h := newViewHall(t)
	ids := h.letters(5)
	somebody := h.open(QueueOptions{MaxMessages: 3})
	leased, err := somebody.Next(t.Context())
	h.must(err)
	before := h.Stats(dlqSub)

	l, err := h.look()
	h.must(err)
	if got := h.read(l); !slices.Equal(got, ids) {
		t.Errorf("it shows %q, want %q", got, ids)
	}
	if after := h.Stats(dlqSub); after != before || l.Doubt() != "" {
		t.Errorf("the queue is %+v, was %+v; doubt: %q", after, before, l.Doubt())
	}
	if err := l.Acknowledge(t.Context(), []string{"x"}); err == nil {
		t.Error("it acknowledges")
	}
	h.must(l.CloseLook())
	if n := len(h.Snapshots()); n != 0 {
		t.Errorf("%d snapshots are left", n)
	}

	// The next one shows the state of its own time.
	h.must(somebody.Remove(t.Context(), []string{leased[0].GetMessageId()}))
	left := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == leased[0].GetMessageId() })
	l, err = h.look()
	h.must(err)
	if got := h.read(l); !slices.Equal(got, left) {
		t.Errorf("the second shows %q, want %q", got, left)
	}
	h.must(l.CloseLook())
}

// TestLookIsRefused has everything for which there is no look. Nothing changes then, and
// nothing stays behind.
func TestLookIsRefused(t *testing.T) {
	denied := status.Error(codes.PermissionDenied, "User not authorized to perform this action.")
	for name, c := range map[string]struct {
		change func(*hall)
		fault  map[string]error
		want   string
	}{
		"an old message":        {change: func(h *hall) { h.AgeMessages(6*24*time.Hour + 23*time.Hour + time.Minute) }, want: "its oldest message is seven days old, or almost"},
		"no permission to make": {fault: map[string]error{"CreateSnapshot": denied}, want: "you may not make snapshots"},
		"no permission to seek": {fault: map[string]error{"Seek": denied}, want: "you may not use snapshots"},
		"somebody else looks":   {change: func(h *hall) { h.snapshot(time.Now().Add(-29 * time.Minute)) }, want: "somebody else looks at it just now"},
		"no time of the other":  {change: func(h *hall) { h.snapshot(time.Time{}) }, want: "somebody else looks at it just now"},
		"an unreadable other": {
			change: func(h *hall) { h.snapshot(time.Now().Add(-31 * time.Minute)) }, fault: map[string]error{"GetSnapshot": denied},
			want: "somebody else looks at it just now",
		},
		"an outage": {fault: map[string]error{"CreateSnapshot": status.Error(codes.Unavailable, "away")}, want: "Pub/Sub made no snapshot: "},
	} {
		t.Run(name, func(t *testing.T) {
			h := newViewHall(t)
			h.letters(1)
			if c.change != nil {
				c.change(h)
			}
			before := len(h.Snapshots())
			h.SetFault(func(method string, _ any) error { return c.fault[method] })
			_, err := h.look()
			refused, ok := errors.AsType[*LookError](err)
			if !ok || !strings.HasPrefix(refused.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if after := len(h.Snapshots()); after != before {
				t.Errorf("%d snapshots, were %d", after, before)
			}
		})
	}
	t.Run("no view", func(t *testing.T) {
		h := newHall(t)
		if _, err := h.look(); err == nil || !strings.HasPrefix(err.Error(), "DLQ_VIEW_SUBSCRIPTION does not exist") || len(h.Snapshots()) != 0 {
			t.Errorf("%v, and %d snapshots", err, len(h.Snapshots()))
		}
	})
	t.Run("a view of another topic", func(t *testing.T) {
		h := newHall(t)
		h.must(h.CreateSubscription(viewSub, mainTopic))
		if _, err := h.look(); err == nil || !strings.HasPrefix(err.Error(), "DLQ_VIEW_SUBSCRIPTION is no subscription of the dead-letter topic") || len(h.Snapshots()) != 0 {
			t.Errorf("%v, and %d snapshots", err, len(h.Snapshots()))
		}
	})
}

// snapshot makes the snapshot of another look, which began at that time; zero: it does not
// say so.
func (h *hall) snapshot(created time.Time) {
	h.t.Helper()
	client, err := NewClient(h.t.Context(), viewSub, h.options()...)
	h.must(err)
	defer client.Close()
	labels := map[string]string{}
	if !created.IsZero() {
		labels[createdLabel] = strconv.FormatInt(created.Unix(), 10)
	}
	_, err = client.client.CreateSnapshot(h.t.Context(), &pubsubpb.CreateSnapshotRequest{Name: viewSnap, Subscription: dlqSub, Labels: labels})
	h.must(err)
}

// TestLookOfTheKilled: the snapshot of a command that was killed is replaced once it is old,
// whichever clock is wrong.
func TestLookOfTheKilled(t *testing.T) {
	for _, age := range []time.Duration{31 * time.Minute, -31 * time.Minute, 6 * 24 * time.Hour} {
		h := newViewHall(t)
		h.snapshot(time.Now().Add(-age))
		ids := h.letters(2)
		l, err := h.look()
		h.must(err)
		if got := h.read(l); !slices.Equal(got, ids) {
			t.Errorf("age %v: it shows %q, want %q", age, got, ids)
		}
		h.must(l.CloseLook())
	}
}

// TestOneLookAtATime: of two commands that begin at the same time, one looks.
func TestOneLookAtATime(t *testing.T) {
	h := newViewHall(t)
	h.letters(1)
	first, err := h.look()
	h.must(err)
	if _, err := h.look(); err == nil || !strings.HasPrefix(err.Error(), "somebody else looks") {
		t.Errorf("the second: %v", err)
	}
	h.must(first.CloseLook())
	third, err := h.look()
	h.must(err)
	h.must(third.CloseLook())
}

// TestInterruptedLook: an interrupt leaves no snapshot, whenever it comes.
func TestInterruptedLook(t *testing.T) {
	for _, method := range []string{"CreateSnapshot", "Seek"} {
		h := newViewHall(t)
		h.letters(1)
		ctx, cancel := context.WithCancel(t.Context())
		var asked atomic.Bool
		h.SetFault(func(m string, _ any) error {
			if m == method {
				asked.Store(true)
				cancel()
				return pubsubserver.AnswerAfter(100 * time.Millisecond)
			}
			return nil
		})
		l, err := OpenLook(ctx, dlqSub, viewSub, h.options()...)
		if err == nil {
			err = l.CloseLook()
		}
		if !asked.Load() || len(h.Snapshots()) != 0 {
			t.Errorf("%s: asked %v, %v, and %d snapshots", method, asked.Load(), err, len(h.Snapshots()))
		}
	}
}

// TestLookLacksOldMessages: a view that is younger than the messages does not pass for a
// complete one.
func TestLookLacksOldMessages(t *testing.T) {
	h := newHall(t)
	h.letters(1)
	h.must(h.CreateSubscription(viewSub, dlqTopic))
	for name, c := range map[string]struct {
		age   time.Duration
		doubt bool
	}{
		"within the error": {time.Minute, false},
		"an hour":          {time.Hour, true},
	} {
		h.AgeMessages(c.age)
		l, err := h.look()
		h.must(err)
		if got := h.read(l); len(got) != 0 {
			t.Fatalf("%s: it shows %q", name, got)
		}
		if got := l.Doubt(); (got != "") != c.doubt {
			t.Errorf("%s: %q", name, got)
		}
		h.must(l.CloseLook())
	}
}

// TestSnapshotStays: a snapshot that cannot be deleted is reported.
func TestSnapshotStays(t *testing.T) {
	h := newViewHall(t)
	l, err := h.look()
	h.must(err)
	h.SetFault(func(method string, _ any) error {
		if method == "DeleteSnapshot" {
			return status.Error(codes.PermissionDenied, "no")
		}
		return nil
	})
	if err := l.CloseLook(); err == nil || !strings.Contains(err.Error(), viewSnap+" was not deleted") {
		t.Errorf("got %v", err)
	}
}

func TestSnapshotName(t *testing.T) {
	if got := snapshotName(viewSub); got != viewSnap {
		t.Errorf("got %s", got)
	}
	if _, id, _ := strings.Cut(snapshotName("projects/p/subscriptions/"+strings.Repeat("v", 255)), "/snapshots/"); len(id) != 255 {
		t.Errorf("%d characters", len(id))
	}
}
