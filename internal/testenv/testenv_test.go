package testenv

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestWithinEndsWithItsConditionItsTimeOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ok := Within(t.Context(), time.Minute, func() bool { return time.Since(began) >= time.Second })
		if took := time.Since(began); !ok || took > time.Second+poll {
			t.Errorf("%t after %v, want true after 1s", ok, took)
		}
		began = time.Now()
		if Within(t.Context(), time.Minute, func() bool { return false }) || time.Since(began) != time.Minute {
			t.Errorf("it ended after %v, want false after 1m", time.Since(began))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began = time.Now()
		if Within(ctx, time.Minute, func() bool { return false }) || time.Since(began) != 3*time.Second {
			t.Errorf("it ended after %v, want false after 3s", time.Since(began))
		}
	})
}

func TestBufferTakesConcurrentWrites(t *testing.T) {
	var b Buffer
	var writers sync.WaitGroup
	for range 10 {
		writers.Go(func() { fmt.Fprint(&b, "12345") })
	}
	writers.Wait()
	if got := len(b.String()); got != 50 {
		t.Errorf("%d bytes, want 50", got)
	}
}

func TestSumMetricAddsUpSeries(t *testing.T) {
	const text = `# HELP relay_events_total of all
relay_events_total{service="a"} 2
relay_events_total{service="b"} 3
relay_events_total_more 100
relay_up 1
`
	for name, want := range map[string]float64{"relay_events_total": 5, "relay_up": 1, "relay_none": 0} {
		if got := SumMetric(text, name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}
