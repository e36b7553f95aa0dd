package runner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sourcegraph/telemetry-relay/bench/fakegateway"
)

const (
	// secondsToAdapt is the time after a change of the capacity, and after the start, that
	// does not count.
	secondsToAdapt = 5
	// secondsToRecover is how long the worker may take until it uses all the capacity
	// again.
	secondsToRecover = 10
)

// capacityPhases returns the speed of each phase of a run with a capacity, and how many
// streams were refused once the worker had adapted. The last thousandth of the events does
// not count: a drain submits its controls one after the other.
func capacityPhases(m Measurement) string {
	g := m.Gateway
	var b strings.Builder
	for _, phase := range []struct {
		name     string
		from, to int // seconds
	}{
		{"all of it", secondsToAdapt, g.Reduced},
		{"half of it", g.Reduced + secondsToAdapt, g.Restored},
		{"all of it again", g.Restored + secondsToRecover, untilShare(g.Seconds, 0.999)},
	} {
		fmt.Fprintf(&b, "%s, %s: %s\n", m.Case, phase.name, sumUp(g.Seconds, phase.from, phase.to))
	}
	return b.String()
}

// sumUp returns the counts of the seconds from one to another.
func sumUp(seconds []fakegateway.Second, from, to int) string {
	if from >= to {
		return "too short to tell, use more --events"
	}
	var sum fakegateway.Second
	for _, s := range seconds[from:to] {
		sum.Recorded += s.Recorded
		sum.Streams += s.Streams
		sum.Refused += s.Refused
	}
	return fmt.Sprintf("%d events/s, %d streams/s, %.2f %% of the streams refused (%d s)",
		sum.Recorded/(to-from), sum.Streams/(to-from), 100*float64(sum.Refused)/float64(max(1, sum.Streams+sum.Refused)), to-from)
}

// shares returns how much of a steady capacity several workers have used once they had
// adapted, until the backlog came to its end, and what the slowest of them has submitted.
func shares(m Measurement) string {
	if len(m.Submitted) == 0 {
		return ""
	}
	from, to := secondsToAdapt, untilShare(m.Gateway.Seconds, 0.9)
	sum := 0
	for _, n := range m.Submitted {
		sum += n
	}
	slowest := 100 * float64(slices.Min(m.Submitted)*len(m.Submitted)) / float64(max(1, sum))
	text := fmt.Sprintf("%s: the slowest has submitted %.0f %% of the average\n%[1]s: %[3]s\n", m.Case, slowest, sumUp(m.Gateway.Seconds, from, to))
	if from >= to {
		return text
	}
	streams := 0
	for _, s := range m.Gateway.Seconds[from:to] {
		streams += s.Streams
	}
	possible := float64(m.Plan.Capacity) / float64(m.Plan.Latency) * 1000
	return text + fmt.Sprintf("%s: %.0f %% of the capacity used\n", m.Case, 100*float64(streams)/float64(to-from)/possible)
}

// untilShare returns the second in which this share of all events was recorded.
func untilShare(seconds []fakegateway.Second, share float64) int {
	total, so := 0, 0
	for _, s := range seconds {
		total += s.Recorded
	}
	for i, s := range seconds {
		if so += s.Recorded; float64(so) >= share*float64(total) {
			return i
		}
	}
	return len(seconds)
}
