package runner

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/bench/fakegateway"
	"github.com/sourcegraph/telemetry-relay/bench/load"
)

func TestCapacityPhases(t *testing.T) {
	seconds := make([]fakegateway.Second, 40)
	for i := range seconds {
		switch {
		case i < 10:
			seconds[i] = fakegateway.Second{Recorded: 40_000, Streams: 400}
		case i < 20: // adapting until 15
			seconds[i] = fakegateway.Second{Recorded: 20_000, Streams: 198, Refused: 2}
		default:
			seconds[i] = fakegateway.Second{Recorded: 30_000, Streams: 300}
		}
	}
	for i := range 5 {
		seconds[10+i].Refused = 500
	}
	m := Measurement{Case: "x", Gateway: fakegateway.Report{Seconds: seconds, Reduced: 10, Restored: 20}}
	const want = `x, all of it: 40000 events/s, 400 streams/s, 0.00 % of the streams refused (5 s)
x, half of it: 20000 events/s, 198 streams/s, 1.00 % of the streams refused (5 s)
x, all of it again: 30000 events/s, 300 streams/s, 0.00 % of the streams refused (9 s)
`
	if diff := cmp.Diff(want, capacityPhases(m)); diff != "" {
		t.Error(diff)
	}
	m.Gateway.Reduced, m.Gateway.Restored = 5, 9
	m.Gateway.Seconds = seconds[:12]
	const short = "too short to tell, use more --events\n"
	if diff := cmp.Diff("x, all of it: "+short+"x, half of it: "+short+"x, all of it again: "+short, capacityPhases(m)); diff != "" {
		t.Error(diff)
	}
}

func TestShares(t *testing.T) {
	seconds := make([]fakegateway.Second, 15)
	for i := range seconds {
		seconds[i] = fakegateway.Second{Recorded: 36_000, Streams: 360, Refused: 3}
		if i < secondsToAdapt {
			seconds[i] = fakegateway.Second{Recorded: 5_000, Streams: 50, Refused: 50}
		}
	}
	m := Measurement{
		Case: "x", Plan: load.Plan{Latency: 250, Capacity: 100}, Submitted: []int{60, 100, 140},
		Gateway: fakegateway.Report{Seconds: seconds},
	}
	const want = `x: the slowest has submitted 60 % of the average
x: 36000 events/s, 360 streams/s, 0.83 % of the streams refused (8 s)
x: 90 % of the capacity used
`
	if diff := cmp.Diff(want, shares(m)); diff != "" {
		t.Error(diff)
	}
}
