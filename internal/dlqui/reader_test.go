package dlqui

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
)

// scriptedSource reads as many messages as a test says, when it says so.
type scriptedSource struct {
	results chan scriptedRead
	reads   int // written by the readings, which do not overlap
}

type scriptedRead struct {
	messages []*pubsubpb.PubsubMessage
	err      error
}

func (s *scriptedSource) Read(ctx context.Context, into *spool.Writer, progress func(int)) (Reading, error) {
	s.reads++
	select {
	case result := <-s.results:
		for i, m := range result.messages {
			if err := into.Add(m); err != nil {
				return Reading{}, err
			}
			progress(i + 1)
		}
		return Reading{Complete: true}, result.err
	case <-ctx.Done():
		return Reading{}, ctx.Err()
	}
}

func (s *scriptedSource) Owner(string) (owner, runbook string) { return "owner", "runbook" }

func newTestReader(t *testing.T) (r *reader, source *scriptedSource, replaced *int) {
	source, replaced = &scriptedSource{results: make(chan scriptedRead)}, new(int)
	return &reader{queue: source, folder: t.TempDir(), background: newBackground(), replaced: func() { *replaced++ }}, source, replaced
}

// spoolFiles counts the files in the folder of the spools.
func spoolFiles(t *testing.T, r *reader) int {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(r.folder, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(left)
}

func TestReaderReadsOnceAtATimeAndKeepsTheLastGoodReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, source, replaced := newTestReader(t)
		if r.current() != nil {
			t.Error("a spool before the first reading")
		}
		r.start()
		r.start()
		synctest.Wait()
		if st := r.status(); st.phase != goingOn || source.reads != 1 {
			t.Errorf("%+v, %d readings", st, source.reads)
		}
		source.results <- scriptedRead{messages: queueOf(3, userDetail)}
		synctest.Wait()
		first := r.current()
		if st := r.status(); st.phase != succeeded || st.count != 3 || st.last.messages != 3 || !st.last.found.Complete || *replaced != 1 || first.Faults()[0].Owner != "owner" {
			t.Errorf("%+v, replaced %d times", st, *replaced)
		}
		r.start()
		source.results <- scriptedRead{messages: queueOf(5, userDetail), err: errors.New("gone")}
		synctest.Wait()
		after := r.current()
		if st := r.status(); st.phase != failed || st.failure == nil || st.last.messages != 3 || *replaced != 1 || after != first {
			t.Errorf("after a failure: %+v", st)
		}
		after.Release()
		r.start()
		source.results <- scriptedRead{messages: queueOf(4, userDetail)}
		synctest.Wait()
		if st := r.status(); st.phase != succeeded || st.failure != nil || st.last.messages != 4 || *replaced != 2 {
			t.Errorf("%+v", st)
		}
		if first.Len() != 3 || !first.Hold() {
			t.Error("a spool was removed although a request reads it")
		}
		first.Release()
		first.Release()
		r.background.close()
		r.close()
		if n := spoolFiles(t, r); n > 0 || first.Hold() {
			t.Errorf("%d files of the queue are left", n)
		}
	})
}

// TestReaderStartsNothingAfterClose: a request may come while the server ends.
func TestReaderStartsNothingAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, source, _ := newTestReader(t)
		r.start()
		synctest.Wait()
		r.background.close()
		r.start()
		synctest.Wait()
		if st := r.status(); source.reads != 1 || !errors.Is(st.failure, context.Canceled) || spoolFiles(t, r) > 0 {
			t.Errorf("%d readings, %+v", source.reads, st)
		}
	})
}
