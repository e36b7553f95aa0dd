package fakegateway

import (
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/bench/load"
)

// payload returns a payload with this number of events, from the first on, of one
// publisher.
func payload(t *testing.T, first, events int) []byte {
	t.Helper()
	maker, err := load.NewEventMaker()
	if err != nil {
		t.Fatal(err)
	}
	var b []byte
	for i := range events {
		b = maker.Append(b, first+i)
	}
	return b
}

// TestCapacityIsLimited sends 4 payloads at once to a gateway that takes 2.
func TestCapacityIsLimited(t *testing.T) {
	s, _, err := Start(load.Plan{Events: 300, Publishers: 1, Latency: 200, Capacity: 2})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var mu sync.Mutex
	var sent sync.WaitGroup
	results := map[codes.Code]int{}
	for i := range 4 {
		content := payload(t, 10*i, 10)
		sent.Go(func() {
			_, err := s.take(t.Context(), load.ServiceID(0), content)
			mu.Lock()
			defer mu.Unlock()
			results[status.Code(err)]++
		})
	}
	sent.Wait()
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("the payloads were recorded within %v", took)
	}
	if results[codes.OK] != 2 || results[codes.ResourceExhausted] != 2 {
		t.Errorf("the payloads ended with %v", results)
	}
	if got := s.Close(); got.Recorded != 20 || got.Refused != 2 || got.Streams != 2 || got.MostStreams != 2 {
		t.Errorf("%+v", got)
	}
}

// TestCapacityIsHalved requires half of the capacity for the second third of the events.
func TestCapacityIsHalved(t *testing.T) {
	plan := load.Plan{Events: 300, Publishers: 1, Capacity: 10}
	for recorded, want := range map[int]int{0: 10, 99: 10, 100: 5, 199: 5, 200: 10, 300: 10} {
		if got := plan.CapacityAfter(recorded); got != want {
			t.Errorf("after %d events: %d, want %d", recorded, got, want)
		}
	}
}

// TestNoisyLatenciesDoNotCount has a noisy publisher with most of the events.
func TestNoisyLatenciesDoNotCount(t *testing.T) {
	plan := load.Plan{Events: 42, Publishers: 3, Noisy: 7, Rate: 1}
	var owners strings.Builder
	for i := range plan.Events {
		owners.WriteByte(byte('0' + plan.Publisher(i)))
	}
	if want := "100000020000001000000200000010000002000000"; owners.String() != want {
		t.Errorf("the publishers are\n%s, want\n%s", owners.String(), want)
	}
	s, _, err := Start(plan)
	if err != nil {
		t.Fatal(err)
	}
	for i := range plan.Events {
		if _, err := s.take(t.Context(), load.ServiceID(plan.Publisher(i)), payload(t, i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.latency) != 6 {
		t.Errorf("%d latencies, want those of the quiet publishers", len(s.latency))
	}
	if got := s.Close(); got.Recorded != 42 || got.Wrong != 0 {
		t.Errorf("%+v", got)
	}
}

// TestWarmUp requires that latencies of events published before the end of the warm-up do
// not count.
func TestWarmUp(t *testing.T) {
	for _, warmUp := range []int{0, 5} {
		s, _, err := Start(load.Plan{Events: 10, Publishers: 1, Rate: 1, WarmUp: warmUp})
		if err != nil {
			t.Fatal(err)
		}
		// The maker's events are of now.
		if _, err := s.take(t.Context(), load.ServiceID(0), payload(t, 0, 3)); err != nil {
			t.Fatal(err)
		}
		s.report.First = s.report.First.Add(-10 * time.Second)
		s.counted = s.counted.Add(-10 * time.Second)
		if _, err := s.take(t.Context(), load.ServiceID(0), payload(t, 3, 2)); err != nil {
			t.Fatal(err)
		}
		want := 2
		if warmUp == 0 {
			want = 5
		}
		if len(s.latency) != want {
			t.Errorf("warm-up of %d s: %d latencies, want %d", warmUp, len(s.latency), want)
		}
		s.Close()
	}
}
