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

// fakeExit keeps what comes.
type fakeExit struct {
	mu        sync.Mutex
	requests  [][]*pubsubpb.PubsubMessage
	removed   []string
	refuse    func([]*pubsubpb.PubsubMessage) error
	removeErr error
}

func (f *fakeExit) Publish(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
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

func (f *fakeExit) Remove(_ context.Context, ids []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.removed = append(f.removed, ids...)
	return f.removeErr
}

func replayer(exit Exit) (*Replayer, *[]string) {
	var told []string
	return &Replayer{Exit: exit, MaxReplays: 3, Report: func(s *Stored, err error) {
		told = append(told, s.ID+": "+err.Error())
	}}, &told
}

func stored(t testing.TB, i int, l *Letter) *Stored {
	s := asStored(t, l)
	s.ID = fmt.Sprint(i)
	return s
}

func TestReplayAttributes(t *testing.T) {
	for _, c := range []struct {
		name   string
		letter *Stored
		want   map[string]string
	}{
		{"first", asStored(t, letter("{}", nil)), map[string]string{
			"replay_count": "1", "origin_message_id": "4711", "origin_publish_time": "2026-11-20T09:00:00.123456789Z",
		}},
		{"again", asStored(t, letter("{}", replayed(nil))), map[string]string{
			"replay_count": "3", "origin_message_id": "1", "origin_publish_time": "2026-11-19T09:00:00Z",
		}},
		{"the publisher's own names", asStored(t, letter("{}", map[string]string{"origin_message_id": "mine", "origin_publish_time": "x"})), map[string]string{
			"replay_count": "1", "origin_message_id": "4711", "origin_publish_time": "2026-11-20T09:00:00.123456789Z",
		}},
		{"native", Read(&pubsubpb.PubsubMessage{MessageId: "5", Attributes: map[string]string{
			nativeAttempts: "5", nativePublishTime: "2026-11-18T09:00:00+00:00",
		}}, ""), map[string]string{"replay_count": "1", "origin_message_id": "5", "origin_publish_time": "2026-11-18T09:00:00Z"}},
	} {
		f := &fakeExit{}
		r, told := replayer(f)
		if err := errors.Join(r.Letter(t.Context(), c.letter), r.Flush(t.Context())); err != nil || len(f.requests) != 1 {
			t.Fatalf("%s: %v %v", c.name, err, *told)
		}
		got := f.requests[0][0].GetAttributes()
		for k, v := range c.want {
			if got[k] != v {
				t.Errorf("%s: %s is %q, want %q", c.name, k, got[k], v)
			}
		}
	}
}

// Requests do not mix ordering keys, and each key keeps its order.
func TestReplayOrder(t *testing.T) {
	f := &fakeExit{}
	r, _ := replayer(f)
	for i := range 2500 {
		l := letter(fmt.Sprint(i), nil)
		l.PublishTime = published.Add(time.Duration(-i) * time.Second)
		if i%2 == 0 {
			l.OrderingKey = fmt.Sprint("k", i%10)
		}
		if err := r.Letter(t.Context(), stored(t, i, l)); err != nil {
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

func TestReplayErrors(t *testing.T) {
	fill := func(r *Replayer) {
		for i := range 20 {
			if err := r.Letter(t.Context(), stored(t, i, letter(fmt.Sprint(i), nil))); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Run("one is refused", func(t *testing.T) {
		f := &fakeExit{refuse: func(all []*pubsubpb.PubsubMessage) error {
			if slices.ContainsFunc(all, func(m *pubsubpb.PubsubMessage) bool { return string(m.GetData()) == "7" }) {
				return status.Error(codes.InvalidArgument, "no")
			}
			return nil
		}}
		r, told := replayer(f)
		fill(r)
		err := r.Flush(t.Context())
		if done, failed := r.Counts(); err != nil || done != 19 || failed != 1 || slices.Contains(f.removed, "7") || len(*told) != 1 {
			t.Errorf("%d, %d, %v", done, failed, err)
		}
	})
	t.Run("the topic is away", func(t *testing.T) {
		f := &fakeExit{refuse: func([]*pubsubpb.PubsubMessage) error { return status.Error(codes.Unavailable, "away") }}
		r, _ := replayer(f)
		fill(r)
		err := r.Flush(t.Context())
		if done, failed := r.Counts(); status.Code(err) != codes.Unavailable || done != 0 || failed != 20 || f.removed != nil {
			t.Errorf("%d, %d, %v", done, failed, err)
		}
	})
	t.Run("the queue is away", func(t *testing.T) {
		f := &fakeExit{removeErr: errors.New("away")}
		r, told := replayer(f)
		fill(r)
		err := r.Flush(t.Context())
		if done, failed := r.Counts(); err == nil || done != 0 || failed != 20 || !strings.Contains((*told)[0], "was published") {
			t.Errorf("%d, %d, %v", done, failed, err)
		}
	})
	t.Run("it is over", func(t *testing.T) {
		f := &fakeExit{}
		r, _ := replayer(f)
		fill(r)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Flush(ctx); !errors.Is(err, context.Canceled) || f.requests != nil {
			t.Errorf("%v", err)
		}
	})
}

func TestMend(t *testing.T) {
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
		m, err := NewMender(c.expression)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Mend(t.Context(), []byte(c.data))
		if string(got) != c.want || (err != nil) != (c.err != "") || err != nil && (!strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "SECRET")) {
			t.Errorf("%s of %s: %s, %v", c.expression, c.data, got, err)
		}
	}
	m, err := NewMender("def f: f; f")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Mend(ctx, []byte("{}")); err == nil {
		t.Error("an endless expression has ended")
	}
}
