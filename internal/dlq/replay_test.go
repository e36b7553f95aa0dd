package dlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// fakeSink records the requests.
type fakeSink struct {
	mu        sync.Mutex
	requests  [][]*pubsubpb.PubsubMessage
	removed   []string
	refuse    func([]*pubsubpb.PubsubMessage) error
	removeErr error
}

func (f *fakeSink) Publish(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		if err := f.refuse(messages); err != nil {
			return err
		}
	}
	f.requests = append(f.requests, messages)
	return nil
}

func (f *fakeSink) Remove(_ context.Context, ids []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed = append(f.removed, ids...)
	return f.removeErr
}

func replayer(exit Sink) (*Replayer, *[]string) {
	var reported []string
	return &Replayer{Sink: exit, MaxReplays: 3, Report: func(s *Stored, err error) {
		reported = append(reported, s.ID+": "+err.Error())
	}}, &reported
}

func stored(t testing.TB, i int, l *DeadLetter) *Stored {
	s := asStored(t, l)
	s.ID = fmt.Sprint(i)
	return s
}

func TestReplayAttributes(t *testing.T) {
	for _, c := range []struct {
		name    string
		message *Stored
		want    map[string]string
	}{
		{"first", asStored(t, deadLetter("{}", nil)), map[string]string{
			"replay_count": "1", "origin_message_id": "4711", "origin_publish_time": "2026-11-20T09:00:00.123456789Z",
		}},
		{"again", asStored(t, deadLetter("{}", replayed(nil))), map[string]string{
			"replay_count": "3", "origin_message_id": "1", "origin_publish_time": "2026-11-19T09:00:00Z",
		}},
		{"the publisher's own names", asStored(t, deadLetter("{}", map[string]string{"origin_message_id": "mine", "origin_publish_time": "x"})), map[string]string{
			"replay_count": "1", "origin_message_id": "4711", "origin_publish_time": "2026-11-20T09:00:00.123456789Z",
		}},
		{"native", Read(&pubsubpb.PubsubMessage{MessageId: "5", Attributes: map[string]string{
			nativeAttempts: "5", nativePublishTime: "2026-11-18T09:00:00+00:00",
		}}, ""), map[string]string{"replay_count": "1", "origin_message_id": "5", "origin_publish_time": "2026-11-18T09:00:00Z"}},
	} {
		f := &fakeSink{}
		r, reported := replayer(f)
		if err := errors.Join(r.Add(t.Context(), c.message), r.Flush(t.Context())); err != nil || len(f.requests) != 1 {
			t.Fatalf("%s: %v %v", c.name, err, *reported)
		}
		got := f.requests[0][0].GetAttributes()
		for k, v := range c.want {
			if got[k] != v {
				t.Errorf("%s: %s is %q, want %q", c.name, k, got[k], v)
			}
		}
	}
}

// TestReplayOrder: requests do not mix ordering keys, and each key keeps its order.
func TestReplayOrder(t *testing.T) {
	f := &fakeSink{}
	r, _ := replayer(f)
	for i := range 2500 {
		l := deadLetter(fmt.Sprint(i), nil)
		l.PublishTime = published.Add(time.Duration(-i) * time.Second)
		if i%2 == 0 {
			l.OrderingKey = fmt.Sprint("k", i%10)
		}
		if err := r.Add(t.Context(), stored(t, i, l)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	last := map[string]int{}
	for _, request := range f.requests {
		for _, m := range request {
			if m.GetOrderingKey() != request[0].GetOrderingKey() {
				t.Error("a request mixes keys")
			}
			if key := m.GetOrderingKey(); key != "" {
				var n int
				fmt.Sscan(string(m.GetData()), &n)
				if before, ok := last[key]; ok && before < n {
					t.Errorf("%d comes after %d", n, before)
				}
				last[key] = n
			}
		}
		if len(request) > 1000 {
			t.Errorf("%d messages in a request", len(request))
		}
	}
	if done, failed := r.Counts(); done != 2500 || failed != 0 || len(f.removed) != 2500 {
		t.Errorf("%d replayed, %d failed, %d removed", done, failed, len(f.removed))
	}
}

func TestReplayRemovesOnlyPublishedMessages(t *testing.T) {
	fill := func(r *Replayer) {
		for i := range 20 {
			if err := r.Add(t.Context(), stored(t, i, deadLetter(fmt.Sprint(i), nil))); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("one is refused", func(t *testing.T) {
		f := &fakeSink{refuse: func(all []*pubsubpb.PubsubMessage) error {
			if slices.ContainsFunc(all, func(m *pubsubpb.PubsubMessage) bool { return string(m.GetData()) == "7" }) {
				return status.Error(codes.InvalidArgument, "no")
			}
			return nil
		}}
		r, reported := replayer(f)
		fill(r)
		err := r.Flush(t.Context())
		if done, failed := r.Counts(); err != nil || done != 19 || failed != 1 || slices.Contains(f.removed, "7") || len(*reported) != 1 {
			t.Errorf("%d, %d, %v", done, failed, err)
		}
	})
	t.Run("the topic is unavailable", func(t *testing.T) {
		f := &fakeSink{refuse: func([]*pubsubpb.PubsubMessage) error { return status.Error(codes.Unavailable, "unavailable") }}
		r, _ := replayer(f)
		fill(r)
		err := r.Flush(t.Context())
		if done, failed := r.Counts(); status.Code(err) != codes.Unavailable || done != 0 || failed != 20 || f.removed != nil {
			t.Errorf("%d, %d, %v", done, failed, err)
		}
	})
	t.Run("the queue is unavailable", func(t *testing.T) {
		f := &fakeSink{removeErr: errors.New("unavailable")}
		r, reported := replayer(f)
		fill(r)
		err := r.Flush(t.Context())
		if done, failed := r.Counts(); err == nil || done != 0 || failed != 20 || !strings.Contains((*reported)[0], "was published") {
			t.Errorf("%d, %d, %v", done, failed, err)
		}
	})
	t.Run("it is over", func(t *testing.T) {
		f := &fakeSink{}
		r, _ := replayer(f)
		fill(r)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Flush(ctx); !errors.Is(err, context.Canceled) || f.requests != nil {
			t.Errorf("%v", err)
		}
	})
}

func TestFixErrorsQuoteNoData(t *testing.T) {
	const private = `{"a":1,"privateMetadata":{"x":"SECRET"}}`
	for _, c := range []struct{ expression, data, want, err string }{
		{"del(.a)", `{"a":1,"b":9007199254740993}`, `{"b":9007199254740993}`, ""},
		{".a |= tonumber", `{"a":"12"}`, `{"a":12}`, ""},
		{"empty", "{}", "", "nothing"},
		{".,.", "{}", "", "more than one"},
		{".a", private, "", "number"},
		{".privateMetadata.x + 1", private, "", "fails"},
		{"error(.privateMetadata)", private, "", "fails"},
		{".", "{", "", "malformed JSON"},
		{".", "{} {}", "", "more than one JSON value"},
		{"env", "{}", "{}", ""},
	} {
		m, err := CompileFix(c.expression)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Apply(t.Context(), []byte(c.data))
		if string(got) != c.want || (err != nil) != (c.err != "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "SECRET")) {
			t.Errorf("%s of %s: %s, %v", c.expression, c.data, got, err)
		}
	}
	m, err := CompileFix("def f: f; f")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Apply(ctx, []byte("{}")); err == nil {
		t.Error("an endless expression has ended")
	}
}
