package recorder

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// manual is a sender whose results come when the test says so.
type manual struct {
	mu      sync.Mutex
	flights []*manualResult
}

type manualResult struct {
	ready chan struct{}
	err   error
}

func (r *manualResult) Ready() <-chan struct{}              { return r.ready }
func (r *manualResult) Get(context.Context) (string, error) { return "", r.err }

func (m *manual) send(context.Context, []byte) result {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := &manualResult{ready: make(chan struct{})}
	m.flights = append(m.flights, r)
	return r
}

// settle delivers the result of event i.
func (m *manual) settle(i int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flights[i].err = err
	close(m.flights[i].ready)
}

// logText is a log that the test reads while the recorder writes.
type logText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// take returns the text since the last call.
func (l *logText) take() string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.text.Reset()
	return l.text.String()
}

func record(t *testing.T, r *Recorder, want error) {
	t.Helper()
	if err := r.Record(t.Context(), "ab", "cd"); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func isStats(t *testing.T, r *Recorder, want Stats) {
	t.Helper()
	got := r.Stats()
	if want.PublishedBytes == 0 && want.BufferedBytes == 0 { // of no interest here
		got.PublishedBytes, got.BufferedBytes = 0, 0
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func closeNow(t *testing.T, r *Recorder) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return r.Close(ctx)
}

// TestDropsNewest fills the buffer: the newest event is dropped and the earlier ones are
// kept. Once one is settled, in whatever order, there is space again.
func TestDropsNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manual{}
		r := newWith(t, Config{BufferEvents: 3}, m)
		for range 3 {
			record(t, r, nil)
		}
		record(t, r, ErrDropped)
		synctest.Wait()
		isStats(t, r, Stats{Buffered: 3, Dropped: 1})
		m.settle(2, nil) // behind two that hang
		time.Sleep(2 * sweepEvery)
		synctest.Wait()
		isStats(t, r, Stats{Buffered: 2, Dropped: 1, Published: 1})
		record(t, r, nil)
		record(t, r, ErrDropped)
		synctest.Wait()
		m.settle(0, nil)
		m.settle(1, errors.New("refused"))
		m.settle(3, nil)
		synctest.Wait()
		isStats(t, r, Stats{Published: 3, Failed: 1, Dropped: 2})
		if err := r.Close(t.Context()); !errors.Is(err, ErrFailed) || !strings.HasSuffix(err.Error(), "1; the last one: refused") {
			t.Error(err)
		}
	})
}

// TestBoundsBytes has space for the bytes of two events. An event of any size fits in
// alone.
func TestBoundsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manual{}
		r := newWith(t, Config{BufferBytes: 1000}, m)
		large := PrivateMetadata{"x": strings.Repeat("x", 600)}
		if err := r.Record(t.Context(), "ab", "cd", large); err != nil {
			t.Error(err)
		}
		if err := r.Record(t.Context(), "ab", "cd", large); !errors.Is(err, ErrDropped) {
			t.Error(err)
		}
		record(t, r, nil)
		synctest.Wait()
		m.settle(0, nil)
		m.settle(1, nil)
		synctest.Wait()
		if err := r.Record(t.Context(), "ab", "cd", PrivateMetadata{"x": strings.Repeat("x", 5000)}); err != nil {
			t.Error(err)
		}
		record(t, r, ErrDropped)
		synctest.Wait()
		m.settle(2, nil)
		synctest.Wait()
		record(t, r, nil)
		if err := closeNow(t, r); !errors.Is(err, ErrUnconfirmed) {
			t.Error(err)
		}
		isStats(t, r, Stats{Published: 3, Failed: 1, Dropped: 2})
	})
}

func TestBlocksForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manual{}
		r := newWith(t, Config{BufferEvents: 1, BlockFor: time.Second}, m)
		record(t, r, nil)
		began := time.Now()
		record(t, r, ErrDropped)
		if took := time.Since(began); took != time.Second {
			t.Errorf("waited %v", took)
		}
		// The caller's context ends the wait, too.
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		began = time.Now()
		if err := r.Record(ctx, "ab", "cd"); !errors.Is(err, ErrDropped) || time.Since(began) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		go func() {
			time.Sleep(300 * time.Millisecond)
			m.settle(0, nil)
		}()
		began = time.Now()
		record(t, r, nil)
		if took := time.Since(began); took < 300*time.Millisecond || took >= time.Second {
			t.Errorf("waited %v", took)
		}
		synctest.Wait()
		m.settle(1, nil)
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestFlushWaitsForEarlierEvents requires that Flush does not wait for later events.
func TestFlushWaitsForEarlierEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manual{}
		r := newWith(t, Config{}, m)
		record(t, r, nil)
		record(t, r, nil)
		flushed := make(chan error, 1)
		go func() { flushed <- r.Flush(t.Context()) }()
		synctest.Wait()
		record(t, r, nil)
		synctest.Wait()
		m.settle(1, nil)
		time.Sleep(2 * sweepEvery)
		synctest.Wait()
		select {
		case <-flushed:
			t.Error("did not wait for the first")
		default:
		}
		m.settle(0, errors.New("refused"))
		synctest.Wait()
		select {
		case err := <-flushed:
			if !errors.Is(err, ErrFailed) {
				t.Error(err)
			}
		default:
			t.Error("waits for what came later")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		m.settle(2, nil)
		if err := errors.Join(r.Flush(t.Context()), r.Close(t.Context()), r.Flush(t.Context())); err != nil {
			t.Error(err)
		}
	})
}

// TestCloseGivesUp requires that Close returns when its context ends, and reports the lost
// events.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manual{}
		r := newWith(t, Config{}, m)
		for range 3 {
			record(t, r, nil)
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		m.settle(1, nil)
		err := r.Close(ctx)
		if !errors.Is(err, ErrUnconfirmed) || !strings.HasSuffix(err.Error(), "in time: 2") || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		record(t, r, ErrClosed)
		isStats(t, r, Stats{Published: 1, Failed: 2, Dropped: 1})
	})
}

// TestCountsAddUp records from many goroutines while the buffer is sometimes full and the
// recorder is closed. Every event is counted once.
func TestCountsAddUp(t *testing.T) {
	for range 20 {
		r := newWith(t, Config{BufferEvents: 8, Logger: slog.New(slog.DiscardHandler)}, settled{})
		const goroutines, each = 4, 50
		var recorded, dropped Stats
		var mu sync.Mutex
		var wg sync.WaitGroup
		half := make(chan struct{}, goroutines)
		for range goroutines {
			wg.Go(func() {
				for i := range each {
					err := r.Record(t.Context(), "ab", "cd")
					mu.Lock()
					if err == nil {
						recorded.Published++
					} else {
						dropped.Dropped++
					}
					mu.Unlock()
					if i == each/2 {
						half <- struct{}{}
					}
				}
			})
		}
		<-half
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		isStats(t, r, Stats{Published: recorded.Published, Dropped: dropped.Dropped})
		if recorded.Published+dropped.Dropped != goroutines*each {
			t.Errorf("%d + %d", recorded.Published, dropped.Dropped)
		}
	}
}

// TestLossesAreLoggedOncePerMinute requires a line at once, then one a minute with the
// count, and one for the rest at the end.
func TestLossesAreLoggedOncePerMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logText
		r := newWith(t, Config{BufferEvents: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))}, stuck{})
		record(t, r, nil)
		said := func(want ...string) {
			t.Helper()
			var lines []string
			for line := range strings.Lines(log.take()) {
				if !strings.Contains(line, "they are tried again") { // TestWaitingEventsAreLogged
					lines = append(lines, line)
				}
			}
			if len(lines) != len(want) {
				t.Errorf("%d lines, want %d: %s", len(lines), len(want), lines)
				return
			}
			for i := range want {
				if !strings.Contains(lines[i], want[i]) {
					t.Errorf("got %s, want %s", lines[i], want[i])
				}
			}
		}
		record(t, r, ErrDropped)
		said(`level=WARN msg="telemetry events were dropped" count=1 error="recorder: the buffer is full`)
		for range 59 {
			time.Sleep(time.Second)
			record(t, r, ErrDropped)
		}
		said()
		time.Sleep(time.Second)
		record(t, r, ErrDropped)
		said(`count=60`)
		record(t, r, ErrDropped)
		if err := r.Record(t.Context(), "ab", "CD"); err == nil {
			t.Error("no error")
		}
		said(`level=WARN msg="telemetry events are invalid and were not recorded" count=1`)
		if err := closeNow(t, r); err == nil {
			t.Error("no error")
		}
		said(`level=ERROR msg="telemetry events were not published" count=1`, `dropped" count=1`)
	})
}

// TestWaitingEventsAreLogged requires a line about events that wait, before any has failed.
func TestWaitingEventsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logText
		m := &manual{}
		r := newWith(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}, m)
		why := r.outlet.(*pipeline).why
		step := func(d time.Duration, want string) {
			t.Helper()
			time.Sleep(d)
			if got := log.take(); want == "" && got != "" || !strings.Contains(got, want) || strings.Count(got, "\n") > 1 {
				t.Errorf("after %v more: %q, want %q", d, got, want)
			}
		}
		record(t, r, nil)
		step(20*time.Second, "")
		record(t, r, nil)
		m.settle(0, nil)
		step(10*time.Second, "") // the second is younger
		why.set(errors.New("connection refused"))
		step(20*time.Second, `level=WARN msg="telemetry events are not confirmed by Pub/Sub; they are tried again" count=1 for=30s topic=projects/p/topics/t error="connection refused"`)
		record(t, r, nil)
		step(59*time.Second, "")
		step(time.Second, "count=2 for=1m30s")
		m.settle(1, nil)
		m.settle(2, nil)
		step(10*time.Minute, "")
		if why.get() != nil {
			t.Error("the cause outlives it")
		}
		record(t, r, nil)
		step(warnAfter, "count=1 for=30s topic=projects/p/topics/t\n")
		m.settle(3, nil)
		if err := r.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestStatsBytes counts messages as Pub/Sub does.
func TestStatsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &manual{}
		r := newWith(t, Config{}, m)
		beside := uint64(len("schema_version1service_idcody-gatewayservice_environmentprodservice_version2026.46.1"))
		id := ID("019a0000-0000-7000-8000-000000000001")
		at := Timestamp(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
		data := uint64(len(`{"feature":"ab","action":"cd","id":"019a0000-0000-7000-8000-000000000001","timestamp":"2026-11-20T09:00:00Z"}`))
		for range 3 {
			if err := r.Record(t.Context(), "ab", "cd", id, at); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		isStats(t, r, Stats{Buffered: 3, BufferedBytes: 3 * (data + beside)})
		m.settle(0, nil)
		m.settle(1, errors.New("refused"))
		synctest.Wait()
		isStats(t, r, Stats{Published: 1, PublishedBytes: data + beside, Failed: 1, Buffered: 1, BufferedBytes: data + beside})
		m.settle(2, nil)
		_ = r.Close(t.Context()) // says that one was refused
	})
}
