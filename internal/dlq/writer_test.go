package dlq

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// fakeTopic records the published messages. refuse, if set, may refuse a request.
type fakeTopic struct {
	requests  [][]*pubsubpb.PubsubMessage
	published []string // original message ids
	refuse    func(request []*pubsubpb.PubsubMessage) error
}

func (f *fakeTopic) Publish(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
	f.requests = append(f.requests, messages)
	if f.refuse != nil {
		if err := f.refuse(messages); err != nil {
			return err
		}
	}
	for _, m := range messages {
		f.published = append(f.published, m.GetAttributes()[AttrMessageID])
	}
	return nil
}

func messages(n, size int) []*DeadLetter {
	all := make([]*DeadLetter, n)
	for i := range all {
		all[i] = deadLetter(strings.Repeat("x", size), nil)
		all[i].MessageID = fmt.Sprint(i)
	}
	return all
}

func has(request []*pubsubpb.PubsubMessage, id string) bool {
	return slices.ContainsFunc(request, func(m *pubsubpb.PubsubMessage) bool { return m.GetAttributes()[AttrMessageID] == id })
}

func TestWriteSplitsByRequestLimits(t *testing.T) {
	for _, c := range []struct {
		name     string
		messages []*DeadLetter
		requests int
	}{
		{"nothing", nil, 0},
		{"one", messages(1, 10), 1},
		{"as many as fit", messages(1000, 10), 1},
		{"one more", messages(1001, 10), 2},
		{"by bytes", messages(10, 4_000_000), 5},
		{"one that is larger than a request", slices.Concat(messages(2, 100), messages(1, 9_900_000), messages(2, 100)), 3},
	} {
		f := &fakeTopic{}
		results := NewWriter(f, origin).Write(t.Context(), c.messages)
		if len(results) != len(c.messages) || slices.ContainsFunc(results, func(err error) bool { return err != nil }) {
			t.Errorf("%s: %v", c.name, results)
		}
		if len(f.requests) != c.requests {
			t.Errorf("%s: %d requests, want %d", c.name, len(f.requests), c.requests)
		}
		var want []string
		for _, l := range c.messages {
			want = append(want, l.MessageID)
		}
		if !slices.Equal(f.published, want) {
			t.Errorf("%s: published %v", c.name, f.published)
		}
		for _, r := range f.requests {
			if size := proto.Size(&pubsubpb.PublishRequest{Topic: "projects/p/topics/dead", Messages: r}); len(r) > 1000 || size > 10_000_000 {
				t.Errorf("%s: a request with %d messages of %d bytes", c.name, len(r), size)
			}
		}
	}
}

func TestWriteReportsEachMessagesError(t *testing.T) {
	t.Run("one is refused", func(t *testing.T) {
		f := &fakeTopic{refuse: func(r []*pubsubpb.PubsubMessage) error {
			if has(r, "7") {
				return status.Error(codes.InvalidArgument, "too large")
			}
			return nil
		}}
		results := NewWriter(f, origin).Write(t.Context(), messages(20, 10))
		for i, err := range results {
			if errors.Is(err, ErrTooLarge) != (i == 7) || (err != nil) != (i == 7) {
				t.Errorf("message %d: %v", i, err)
			}
		}
		if len(f.published) != 19 {
			t.Errorf("published %v", f.published)
		}
	})
	t.Run("the topic is unavailable", func(t *testing.T) {
		unavailable := status.Error(codes.Unavailable, "unavailable")
		f := &fakeTopic{refuse: func([]*pubsubpb.PubsubMessage) error { return unavailable }}
		for i, err := range NewWriter(f, origin).Write(t.Context(), messages(20, 10)) {
			if !errors.Is(err, unavailable) || errors.Is(err, ErrTooLarge) || errors.Is(err, ErrBroken) {
				t.Errorf("message %d: %v", i, err)
			}
		}
		if len(f.requests) != 1 {
			t.Errorf("%d requests", len(f.requests))
		}
	})
	t.Run("the topic is unavailable for the second request", func(t *testing.T) {
		f := &fakeTopic{}
		f.refuse = func([]*pubsubpb.PubsubMessage) error {
			if len(f.requests) == 2 {
				return status.Error(codes.Unavailable, "unavailable")
			}
			return nil
		}
		results := NewWriter(f, origin).Write(t.Context(), messages(2500, 10))
		for i, err := range results {
			if (err != nil) != (i >= 1000 && i < 2000) {
				t.Fatalf("message %d: %v", i, err)
			}
		}
	})
	t.Run("one does not fit", func(t *testing.T) {
		big(t)
		f := &fakeTopic{}
		all := messages(3, 10)
		all[1].Data = []byte(random(10_500_000))
		results := NewWriter(f, origin).Write(t.Context(), all)
		if results[0] != nil || !errors.Is(results[1], ErrTooLarge) || results[2] != nil {
			t.Errorf("%v", results)
		}
		if !slices.Equal(f.published, []string{"0", "2"}) || len(f.requests) != 1 {
			t.Errorf("published %v in %d requests", f.published, len(f.requests))
		}
	})
	t.Run("one panics", func(t *testing.T) {
		f := &fakeTopic{}
		all := messages(3, 10)
		all[1] = nil
		results := NewWriter(f, origin).Write(t.Context(), all)
		if results[0] != nil || !errors.Is(results[1], ErrBroken) || results[2] != nil || !slices.Equal(f.published, []string{"0", "2"}) {
			t.Errorf("%v, published %v", results, f.published)
		}
	})
}
