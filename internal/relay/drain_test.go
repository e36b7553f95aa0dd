package relay

import (
	"errors"
	"testing"
	"time"
)

// TestDrainEndsWithAProof follows a drain, one tick after the other, until it stops
// receiving.
func TestDrainEndsWithAProof(t *testing.T) {
	const idle, pullWait = 15 * time.Second, 2 * time.Second
	start := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name string
		// At this second, once: something arrives, a dependency is unavailable.
		arrives, unavailable int
		found                int // messages of the first pull
		err                  error
		unanswered           int // seconds for which a stream does not answer
		want                 int // the second at which receiving is stopped; 0: not within a minute
		pulls                int
	}{
		{name: "nothing comes", want: 15, pulls: 3},
		{name: "an event arrives", arrives: 10, want: 25, pulls: 4},
		{name: "the gateway is unavailable for a moment", unavailable: 10, want: 25, pulls: 4},
		{name: "a pull brings something, which arrives", found: 1, want: 24, pulls: 4},
		{name: "pulls are not answered", err: errors.New("unavailable"), want: 0, pulls: 6},
		{name: "a stream does not answer for a while", unanswered: 20, want: 23, pulls: 14},
	} {
		t.Run(test.name, func(t *testing.T) {
			var d drainCheck
			lastBusy, stopped, pulls := start, 0, 0
			for second := 1; second <= 60 && stopped == 0; second++ {
				now := start.Add(time.Duration(second) * time.Second)
				if second == test.arrives {
					lastBusy = now
				}
				switch d.next(drainView{
					now: now, ready: second != test.unavailable, finished: true, lastBusy: lastBusy, idle: idle, pullWait: pullWait,
				}) {
				case drainWait:
				case drainRestart:
					lastBusy = now
				case drainPullOnce:
					pulls++
					if !d.pinged.Equal(now) {
						t.Errorf("the streams were pinged at %v, not with the pull at %v", d.pinged, now)
					}
					if test.found > 0 {
						lastBusy = now // its messages arrive first
					}
					d.pulled(test.found, test.err, second >= test.unanswered, lastBusy)
					if test.err != nil {
						lastBusy = now
					}
					test.found = 0
				case drainStopReceiving:
					stopped = second
				}
			}
			if stopped != test.want {
				t.Errorf("receiving is stopped after %d s, want %d", stopped, test.want)
			}
			if pulls != test.pulls {
				t.Errorf("%d pulls, want %d", pulls, test.pulls)
			}
		})
	}
}

// TestDrainWaitsForEventsInFlight has a drain do nothing while events are in flight, a
// pull is in flight, or receiving is being ended.
func TestDrainWaitsForEventsInFlight(t *testing.T) {
	now := time.Date(2026, 11, 27, 9, 0, 0, 0, time.UTC)
	idle := drainView{now: now, ready: true, finished: true, lastBusy: now.Add(-time.Hour), idle: time.Second}
	busy := idle
	busy.finished = false
	for name, test := range map[string]struct {
		d drainCheck
		v drainView
	}{
		"events in flight":     {drainCheck{}, busy},
		"a pull is in flight":  {drainCheck{pulling: true}, idle},
		"receiving is stopped": {drainCheck{emptying: true}, idle},
	} {
		if got := test.d.next(test.v); got != drainWait {
			t.Errorf("%s: step %d, want to wait", name, got)
		}
	}
}
