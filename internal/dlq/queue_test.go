package dlq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// scripted is a Subscription for fake time, whose answers a test sets.
type scripted struct {
	// pull answers a pull; nil means that there is never a message.
	pull func(ctx context.Context, immediately bool) ([]*pubsubpb.ReceivedMessage, error)
	// settle answers Acknowledge ("ack") and ModifyAckDeadline ("extend",
	// "release"); nil means that all requests succeed.
	settle func(ctx context.Context, what string, ids []string) error

	mu      sync.Mutex
	began   time.Time
	waits   int // waiting pulls
	settled []settled
}

type settled struct {
	what string
	ids  []string
	at   time.Duration // since the start
}

func (s *scripted) Pull(ctx context.Context, _ int, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
	if !immediately {
		s.mu.Lock()
		s.waits++
		s.mu.Unlock()
	}
	if s.pull == nil {
		return nothing(ctx, immediately)
	}
	return s.pull(ctx, immediately)
}

// nothing answers a pull like a server without messages.
func nothing(ctx context.Context, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
	if immediately {
		return nil, nil
	}
	return hang(ctx)
}

func hang(ctx context.Context) ([]*pubsubpb.ReceivedMessage, error) {
	<-ctx.Done()
	return nil, status.FromContextError(ctx.Err()).Err()
}

func (s *scripted) request(ctx context.Context, what string, ids []string) error {
	s.mu.Lock()
	s.settled = append(s.settled, settled{what, slices.Clone(ids), time.Since(s.began)})
	s.mu.Unlock()
	if s.settle == nil {
		return nil
	}
	return s.settle(ctx, what, ids)
}

func (s *scripted) Acknowledge(ctx context.Context, ids []string) error {
	return s.request(ctx, "ack", ids)
}

func (s *scripted) ModifyAckDeadline(ctx context.Context, ids []string, lease time.Duration) error {
	if lease == 0 {
		return s.request(ctx, "release", ids)
	}
	return s.request(ctx, "extend", ids)
}

// requests returns the requests of one kind so far.
func (s *scripted) requests(what string) (all []settled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.settled {
		if x.what == what {
			all = append(all, x)
		}
	}
	return all
}

// received returns n messages with the numbers from i on. They were published before the
// start of the test or, if late is set, after it.
func received(i, n int, late bool) []*pubsubpb.ReceivedMessage {
	at := time.Now().Add(-time.Hour)
	if late {
		at = time.Now().Add(maxClockError / 2)
	}
	all := make([]*pubsubpb.ReceivedMessage, n)
	for k := range all {
		all[k] = &pubsubpb.ReceivedMessage{
			AckId:   fmt.Sprint("ack", i+k),
			Message: &pubsubpb.PubsubMessage{MessageId: fmt.Sprint("m", i+k), PublishTime: timestamppb.New(at)},
		}
	}
	return all
}

// inFakeTime runs a test in fake time, with a queue that has the default options.
func inFakeTime(t *testing.T, s *scripted, test func(t *testing.T, q *Queue)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.began = time.Now()
		q := Open(s, QueueOptions{})
		defer q.Close()
		test(t, q)
	})
}

// readAll reads to the end, and returns how many messages came and how long it took.
func readAll(t *testing.T, q *Queue) (n int, took time.Duration, err error) {
	began := time.Now()
	for {
		messages, err := q.Next(t.Context())
		n += len(messages)
		if errors.Is(err, io.EOF) {
			return n, time.Since(began), nil
		}
		if err != nil {
			return n, time.Since(began), err
		}
	}
}

// wantDoubt requires a doubt that contains want, or no doubt if want is empty.
func wantDoubt(t *testing.T, q *Queue, want string) {
	t.Helper()
	got := strings.Join(q.Doubts(), "; ")
	if (want == "") != (got == "") || !strings.Contains(got, want) {
		t.Errorf("doubts %q, want %q", got, want)
	}
}

// TestReadingEndsAfterThreeEmptyWaitingPulls: the reading ends when three waiting pulls in a
// row, of three seconds each, are empty. Empty pulls that do not wait do not count.
func TestReadingEndsAfterThreeEmptyWaitingPulls(t *testing.T) {
	const wait = 3 * time.Second
	// A waiting pull answers with these numbers of messages; then there are none.
	for name, c := range map[string]struct {
		waiting []int
		early   bool // an empty pull is answered at once
		want    int
		took    time.Duration
	}{
		"empty":                 {nil, false, 0, 3 * wait},
		"empty, answered early": {nil, true, 0, 3 * wait},
		"two empty pulls":       {[]int{0, 0, 5}, false, 5, 5 * wait},
		"again and again":       {[]int{0, 5, 0, 0, 5, 0, 0, 1}, false, 11, 8 * wait},
	} {
		t.Run(name, func(t *testing.T) {
			s, next := &scripted{}, 0
			s.pull = func(ctx context.Context, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
				// A pull that does not wait is always empty.
				if immediately {
					return nil, nil
				}
				if len(c.waiting) == 0 {
					if c.early {
						return nil, nil
					}
					return hang(ctx)
				}
				n := c.waiting[0]
				c.waiting = c.waiting[1:]
				if n == 0 {
					return hang(ctx)
				}
				next += n
				return received(next-n, n, false), nil
			}
			inFakeTime(t, s, func(t *testing.T, q *Queue) {
				n, took, err := readAll(t, q)
				if err != nil || n != c.want || took != c.took || q.Leased() != n {
					t.Errorf("%d messages in %v, %v; want %d in %v", n, took, err, c.want, c.took)
				}
				wantDoubt(t, q, "")
			})
		})
	}
}

func TestReadingWaitsOnlyAtTheEnd(t *testing.T) {
	s, next := &scripted{}, 0
	s.pull = func(ctx context.Context, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
		if next == 50_000 {
			return nothing(ctx, immediately)
		}
		next += 1000
		return received(next-1000, 1000, false), nil
	}
	inFakeTime(t, s, func(t *testing.T, q *Queue) {
		n, took, err := readAll(t, q)
		if err != nil || n != 50_000 || took != 9*time.Second || s.waits != 3 {
			t.Errorf("%d messages in %v with %d waiting pulls, %v", n, took, s.waits, err)
		}
	})
}

// TestDoubtsNameEachReasonForAnIncompleteReading has readings that end although messages may
// be left in the queue.
func TestDoubtsNameEachReasonForAnIncompleteReading(t *testing.T) {
	for name, c := range map[string]struct {
		pull  func(i int) ([]*pubsubpb.ReceivedMessage, error) // the i-th
		want  int
		doubt string
		more  time.Duration // that it may take
	}{
		"messages keep coming": {func(i int) ([]*pubsubpb.ReceivedMessage, error) { return received(i, 1, true), nil }, -1, "messages kept coming", 0},
		"messages keep coming, and the clock is behind": {func(i int) ([]*pubsubpb.ReceivedMessage, error) {
			late := received(i, 1, true)
			late[0].Message.PublishTime = timestamppb.New(time.Now().Add(time.Minute))
			return late, nil
		}, -1, "messages kept coming", futureGrace},
		"the same messages keep coming": {func(i int) ([]*pubsubpb.ReceivedMessage, error) {
			return received(0, 1, false), nil
		}, 1, "messages kept coming", 0},
		"a message came twice": {func(i int) ([]*pubsubpb.ReceivedMessage, error) {
			if i < 2 {
				return received(0, 1, false), nil
			}
			return nil, nil
		}, 1, "messages were delivered twice (1)", 0},
		"a pull failed at the end": {func(i int) ([]*pubsubpb.ReceivedMessage, error) {
			switch i {
			case 0:
				return received(0, 1, false), nil
			case 4:
				return nil, status.Error(codes.Unavailable, "unavailable")
			}
			return nil, nil
		}, 1, "Pub/Sub failed to answer", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, i := &scripted{}, -1
			s.pull = func(ctx context.Context, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
				i++
				time.Sleep(200 * time.Millisecond)
				got, err := c.pull(i)
				if err != nil || len(got) > 0 {
					return got, err
				}
				return nothing(ctx, immediately)
			}
			inFakeTime(t, s, func(t *testing.T, q *Queue) {
				n, took, err := readAll(t, q)
				if err != nil || c.want >= 0 && n != c.want || took < 9*time.Second || took > 18*time.Second+c.more {
					t.Errorf("%d messages in %v, %v", n, took, err)
				}
				wantDoubt(t, q, c.doubt)
			})
		})
	}
}

// TestPullIsRetriedForABoundedTime: the queue retries also refusals that look final, for a
// short time before the first success and longer afterwards. A server that never answers
// does not count as an empty queue.
func TestPullIsRetriedForABoundedTime(t *testing.T) {
	for name, c := range map[string]struct {
		code   codes.Code // OK: no answer
		before bool       // a pull works first
		lasts  time.Duration
		atMost time.Duration // with an error; 0: none
	}{
		"NotFound, for a while":                    {codes.NotFound, false, 5 * time.Second, 0},
		"NotFound, for good":                       {codes.NotFound, false, time.Hour, 18 * time.Second},
		"PermissionDenied, for good":               {codes.PermissionDenied, false, time.Hour, 18 * time.Second},
		"Unauthenticated, in between":              {codes.Unauthenticated, true, 40 * time.Second, 0},
		"Unauthenticated, in between and for good": {codes.Unauthenticated, true, time.Hour, time.Minute},
		"Unavailable":                              {codes.Unavailable, false, 40 * time.Second, 0},
		"Unavailable, for good":                    {codes.Unavailable, false, time.Hour, time.Minute},
		"InvalidArgument":                          {codes.InvalidArgument, true, time.Second, time.Millisecond},
		"no answer":                                {codes.OK, false, time.Hour, 2 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{}
			first := c.before
			s.pull = func(ctx context.Context, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
				switch {
				case first:
					first = false
					return received(0, 1, false), nil
				case time.Since(s.began) >= c.lasts:
					return nothing(ctx, immediately)
				case c.code == codes.OK:
					return hang(ctx)
				}
				return nil, status.Error(c.code, "no")
			}
			want := c.code
			if want == codes.OK {
				want = codes.DeadlineExceeded
			}
			inFakeTime(t, s, func(t *testing.T, q *Queue) {
				_, took, err := readAll(t, q)
				switch {
				case c.atMost == 0 && (err != nil || took > c.lasts+16*time.Second):
					t.Errorf("%v after %v", err, took)
				case c.atMost > 0 && (status.Code(err) != want || took > c.atMost):
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

// TestUnansweredExtensionDelaysNoOther has one request that is never answered. Its ids must
// be tried again long before their leases end.
func TestUnansweredExtensionDelaysNoOther(t *testing.T) {
	s := &scripted{}
	s.pull = batches(10)
	var hung atomic.Bool
	s.settle = func(ctx context.Context, _ string, _ []string) error {
		if time.Since(s.began) > 15*time.Second && hung.CompareAndSwap(false, true) {
			_, err := hang(ctx)
			return err
		}
		return nil
	}
	inFakeTime(t, s, func(t *testing.T, q *Queue) {
		if n, _, err := readAll(t, q); n != 10_000 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		time.Sleep(35*time.Second - time.Since(s.began))
		at := map[time.Duration]int{}
		for _, r := range s.requests("extend") {
			if r.at > 0 { // the others are receipts
				at[r.at.Truncate(time.Second)] += len(r.ids)
			}
		}
		if at[20*time.Second] != 10_000 || at[30*time.Second] != 1000 || len(at) != 2 {
			t.Errorf("extended are %v", at)
		}
	})
}

// batches answers the first pulls with 1,000 messages each, and later ones with none.
func batches(most int) func(context.Context, bool) ([]*pubsubpb.ReceivedMessage, error) {
	n := 0
	return func(ctx context.Context, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
		if n == most {
			return nothing(ctx, immediately)
		}
		n++
		return received((n-1)*1000, 1000, false), nil
	}
}

// partly returns the error of an exactly-once subscription with a result for each ack id.
func partly(results map[string]string) error {
	s, err := status.New(codes.FailedPrecondition, "some ack ids failed").WithDetails(&errdetails.ErrorInfo{
		Reason: "EXACTLY_ONCE_ACKID_FAILURE", Domain: "pubsub.googleapis.com", Metadata: results,
	})
	if err != nil {
		return err
	}
	return s.Err()
}

const (
	permanent = "PERMANENT_FAILURE_INVALID_ACK_ID"
	transient = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"
)

func TestRemoveRetriesOnlyTransientAckIDs(t *testing.T) {
	s, asked := &scripted{}, 0
	s.pull = batches(1)
	s.settle = func(_ context.Context, what string, _ []string) error {
		if what != "ack" {
			return nil
		}
		if asked++; asked > 1 {
			return nil
		}
		results := map[string]string{"ack1": transient, "ack2": transient}
		for i := 3; i < 1000; i++ {
			results[fmt.Sprint("ack", i)] = permanent
		}
		return partly(results)
	}
	inFakeTime(t, s, func(t *testing.T, q *Queue) {
		messages, err := q.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, m := range messages {
			ids = append(ids, m.GetMessageId())
		}
		if err := q.Remove(t.Context(), ids); err != nil {
			t.Error(err)
		}
		acks := s.requests("ack")
		if len(acks) != 2 || len(acks[0].ids) != 1000 || !slices.Equal(acks[1].ids, []string{"ack0", "ack1", "ack2"}) {
			t.Errorf("%d requests, the second with %v", len(acks), acks[1:])
		}
		if q.Leased() != 0 {
			t.Errorf("%d are leased", q.Leased())
		}
		wantDoubt(t, q, "leases were lost (997)")
	})
}

// TestRemoveRetriesARefusedRequest: a refusal without results per id, such as for a disabled
// key, concerns the whole request. It must not make the queue give up any id.
func TestRemoveRetriesARefusedRequest(t *testing.T) {
	s := &scripted{}
	s.pull = batches(1)
	s.settle = func(_ context.Context, what string, _ []string) error {
		if what == "ack" && time.Since(s.began) < 30*time.Second {
			return status.Error(codes.FailedPrecondition, "the key is disabled")
		}
		return nil
	}
	inFakeTime(t, s, func(t *testing.T, q *Queue) {
		if _, err := q.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		err := q.Remove(t.Context(), []string{"m1", "m2"})
		acks := s.requests("ack")
		if err != nil || !slices.Equal(acks[len(acks)-1].ids, []string{"ack1", "ack2"}) || time.Since(s.began) < 30*time.Second {
			t.Errorf("%v after %v: %v", err, time.Since(s.began), acks)
		}
		wantDoubt(t, q, "")
	})
}

// TestLostLeaseIsNeitherExtendedNorReleased: a message whose lease is lost still counts as
// being in the queue, and causes a doubt.
func TestLostLeaseIsNeitherExtendedNorReleased(t *testing.T) {
	s := &scripted{}
	s.pull = batches(1)
	s.settle = func(_ context.Context, what string, ids []string) error {
		if what == "extend" && time.Since(s.began) > 15*time.Second && slices.Contains(ids, "ack1") {
			return partly(map[string]string{"ack1": permanent})
		}
		return nil
	}
	inFakeTime(t, s, func(t *testing.T, q *Queue) {
		if _, err := q.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Second)
		if q.Leased() != 1000 {
			t.Errorf("%d are leased", q.Leased())
		}
		wantDoubt(t, q, "leases were lost (1)")
		last := s.requests("extend")
		if n := len(last[len(last)-1].ids); n != 999 {
			t.Errorf("%d are extended at the end", n)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		if released := s.requests("release"); len(released) != 1 || len(released[0].ids) != 999 {
			t.Errorf("%d requests to release", len(released))
		}
	})
}

// TestReleaseFollowsExtensionsInFlight: Close waits for extensions in flight, which could
// undo the release. It waits only shortly for one that hangs.
func TestReleaseFollowsExtensionsInFlight(t *testing.T) {
	for name, takes := range map[string]time.Duration{"slow": time.Second, "hanging": time.Hour} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{}
			s.pull = batches(1)
			s.settle = func(ctx context.Context, what string, _ []string) error {
				if what == "extend" && time.Since(s.began) > 15*time.Second {
					return retry.Sleep(ctx, takes)
				}
				return nil
			}
			inFakeTime(t, s, func(t *testing.T, q *Queue) {
				if _, err := q.Next(t.Context()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20*time.Second + time.Millisecond - time.Since(s.began))
				if err := q.Close(); err != nil {
					t.Error(err)
				}
				released := s.requests("release")
				if len(released) != 1 || released[0].at < 20*time.Second+min(takes, extendGrace) || released[0].at > 23*time.Second {
					t.Errorf("released: %d requests, the first after %v", len(released), released[0].at)
				}
			})
		})
	}
}

// TestReleasePausesAfterACutPull: Close pauses between the deadline of a waiting pull and
// the release. Pub/Sub may otherwise lease the released messages to that pull.
func TestReleasePausesAfterACutPull(t *testing.T) {
	var ended time.Time // of the latest waiting pull
	answer := batches(1)
	s := &scripted{pull: func(ctx context.Context, immediately bool) ([]*pubsubpb.ReceivedMessage, error) {
		received, err := answer(ctx, immediately)
		if !immediately {
			ended = time.Now()
		}
		return received, err
	}}
	inFakeTime(t, s, func(t *testing.T, q *Queue) {
		if _, _, err := readAll(t, q); err != nil {
			t.Fatal(err)
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
		released := s.requests("release")
		if len(released) != 1 || s.began.Add(released[0].at).Sub(ended) != 500*time.Millisecond {
			t.Errorf("%d releases, the pull ended at %v", len(released), ended.Sub(s.began))
		}
	})
}
