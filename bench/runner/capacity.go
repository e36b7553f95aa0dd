package runner

import (
	"fmt"
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
// streams were refused once the worker had adapted.
func capacityPhases(m Measurement) string {
	g := m.Gateway
	var b strings.Builder
	for _, phase := range []struct {
		name     string
		from, to int // seconds
	}{
		{"all of it", secondsToAdapt, g.Reduced},
		{"half of it", g.Reduced + secondsToAdapt, g.Restored},
		{"all of it again", g.Restored + secondsToRecover, len(g.Seconds) - 1},
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
