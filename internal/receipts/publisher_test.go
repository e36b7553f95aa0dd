package receipts

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// fakeTopic records the published messages. answer, if set, may refuse a request.
type fakeTopic struct {
	mu       sync.Mutex
	requests [][]*pubsubpb.PubsubMessage
	asked    int
	answer   func(ctx context.Context) error
}

func (f *fakeTopic) Publish(ctx context.Context, messages []*pubsubpb.PubsubMessage) error {
	f.mu.Lock()
	f.asked++
	answer := f.answer
	f.mu.Unlock()
	if answer != nil {
		if err := answer(ctx); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, messages)
	return nil
}

func (f *fakeTopic) set(answer func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// times returns how many requests came.
func (f *fakeTopic) times() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// sizes returns the sizes of the requests so far.
func (f *fakeTopic) sizes() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []int
	for _, r := range f.requests {
		all = append(all, len(r))
	}
	return fmt.Sprint(all)
}

func refuse(code codes.Code) func(context.Context) error {
	return func(context.Context) error { return status.Error(code, "the reason") }
}

// env is a Publisher in fake time, with its topic, its log and its results.
type env struct {
	*Publisher
	topic *fakeTopic
	log   testenv.Buffer

	mu     sync.Mutex // guards counts
	counts map[string]int
}

func inFakeTime(t *testing.T, test func(t *testing.T, w *env)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &env{topic: &fakeTopic{}, counts: map[string]int{}}
		w.Publisher = NewPublisher(w.topic, slog.New(slog.NewTextHandler(&w.log, nil)), func(result string, n int) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.counts[result] += n
		})
		test(t, w)
		w.Close(t.Context())
	})
}

func (w *env) add(n int) {
	for range n {
		w.Add(goldenReceipt)
	}
}

func (w *env) has(t *testing.T, sizes string, counts map[string]int) {
	t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.topic.sizes(); got != sizes || !maps.Equal(w.counts, counts) {
		t.Errorf("requests of %s, results %v; want %s and %v", got, w.counts, sizes, counts)
	}
}

func TestReceiptsArePublishedInBatches(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *env) {
		w.add(1)
		time.Sleep(batchDelay / 2)
		w.add(2)
		w.has(t, "[]", nil)
		time.Sleep(batchDelay / 2)
		w.has(t, "[3]", map[string]int{ResultOK: 3})
		if got := w.topic.requests[0][0]; len(got.GetData()) != 0 || !maps.Equal(got.GetAttributes(), golden) {
			t.Errorf("published was %v", got)
		}
		w.add(1200) // a full batch is published at once
		w.has(t, "[3 1000]", map[string]int{ResultOK: 1003})
		time.Sleep(batchDelay)
		w.has(t, "[3 1000 200]", map[string]int{ResultOK: 1203})
		time.Sleep(time.Hour)
		w.has(t, "[3 1000 200]", map[string]int{ResultOK: 1203})
		if w.log.String() != "" {
			t.Errorf("logged: %s", w.log.String())
		}
	})
}

// TestReceiptsWaitForAnUnavailableTopic: receipts wait in a bounded queue; the Publisher
// drops and counts the others. Add never blocks.
func TestReceiptsWaitForAnUnavailableTopic(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.NotFound, codes.PermissionDenied} {
		inFakeTime(t, func(t *testing.T, w *env) {
			w.topic.set(refuse(code))
			w.add(1)
			time.Sleep(batchDelay)
			synctest.Wait()
			began := time.Now()
			w.add(maxQueued + 7)
			if took := time.Since(began); took > 0 {
				t.Errorf("adding blocked for %v", took)
			}
			w.has(t, "[]", map[string]int{ResultDropped: 7})
			time.Sleep(150 * time.Second)
			synctest.Wait()
			if got := strings.Count(w.log.String(), "level=WARN"); got != 3 || !strings.Contains(w.log.String(), "the reason") {
				t.Errorf("%d warnings in 2.5 minutes, want 3:\n%s", got, w.log.String())
			}
			if n := w.topic.times(); n > 30 {
				t.Errorf("%d requests in 2.5 minutes", n)
			}
			w.topic.set(nil)
			time.Sleep(2 * retryLongest)
			w.has(t, "[1 1000 1000 1000 1000 1000 1000 1000 1000 1000 1000]", map[string]int{ResultDropped: 7, ResultOK: maxQueued + 1})
			if !strings.Contains(w.log.String(), "published again") {
				t.Errorf("logged: %s", w.log.String())
			}
		})
	}
}

func TestRefusedReceiptDelaysNoOther(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *env) {
		w.topic.set(refuse(codes.InvalidArgument))
		w.add(2)
		time.Sleep(batchDelay)
		synctest.Wait()
		w.topic.set(nil)
		w.add(3)
		time.Sleep(batchDelay)
		w.has(t, "[3]", map[string]int{ResultError: 2, ResultOK: 3})
	})
}

func TestClosePublishesWaitingReceipts(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(context.Context) error
		before time.Duration // from the first receipts to the end
		within time.Duration // for which the end may last
		took   time.Duration // it lasts
		sizes  string
		counts map[string]int
	}{
		"nothing waits longer":     {within: time.Second, sizes: "[1000 500]", counts: map[string]int{ResultOK: 1500}},
		"the topic is unavailable": {answer: refuse(codes.Unavailable), before: time.Minute, within: 2 * time.Second, took: 2 * time.Second, sizes: "[]", counts: map[string]int{ResultError: 1500}},
		"the topic hangs":          {answer: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, before: time.Minute, within: 2 * time.Second, took: 2 * time.Second, sizes: "[]", counts: map[string]int{ResultError: 1500}},
		"there is no time":         {answer: func(ctx context.Context) error { return ctx.Err() }, within: 0, sizes: "[]", counts: map[string]int{ResultError: 1500}},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T, w *env) {
				w.topic.set(c.answer)
				if c.before > 0 {
					w.add(1500)
					time.Sleep(c.before)
				}
				ctx, cancel := context.WithTimeout(t.Context(), c.within)
				defer cancel()
				if c.before == 0 {
					if c.within == 0 {
						w.cancel()
					}
					w.add(1500)
				}
				began := time.Now()
				w.Close(ctx)
				if took := time.Since(began); took != c.took {
					t.Errorf("it took %v, want %v", took, c.took)
				}
				w.has(t, c.sizes, c.counts)
				if lost := c.counts[ResultError] > 0; lost != strings.Contains(w.log.String(), "receipts=1500") {
					t.Errorf("logged: %s", w.log.String())
				}
			})
		})
	}
}

func TestCloseCutsThePauseShort(t *testing.T) {
	inFakeTime(t, func(t *testing.T, w *env) {
		w.topic.set(refuse(codes.Unavailable))
		w.add(1)
		time.Sleep(time.Minute) // the pauses are long now
		w.topic.set(nil)
		began := time.Now()
		w.Close(t.Context())
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v", took)
		}
		w.has(t, "[1]", map[string]int{ResultOK: 1})
	})
}
