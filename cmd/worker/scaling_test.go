package main

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/dustin/go-humanize"

	"github.com/sourcegraph/telemetry-relay/config"
)

var updateScaling = flag.Bool("scaling.update", false, "write the results into docs/scaling.md")

const scalingDoc = "../../docs/scaling.md"

// scale is the arithmetic of docs/scaling.md.
type scale map[string]float64

func readScale(t *testing.T, text string) scale {
	t.Helper()
	s := scale{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([0-9.]+) \\|").FindAllStringSubmatch(text, -1) {
		value, err := strconv.ParseFloat(row[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		s[row[1]] = value
	}
	return s
}

// outstanding is how many events are in flight at most.
func (s scale) outstanding() float64 {
	return min(s["outstanding_events"], s["outstanding_bytes"]/s["message_bytes"])
}

// bound is one thing that limits an instance, in events a second.
type bound struct {
	name, how string
	rate      float64
}

func (s scale) bounds() []bound {
	return []bound{
		{"CPU", "`cores × utilization ÷ cpu_seconds_per_million × 1,000,000`", s["cores"] * s["utilization"] / s["cpu_seconds_per_million"] * 1e6},
		{"streams to the gateway", "`streams × batch_events ÷ stream_seconds`", s["streams"] * s["batch_events"] / s["stream_seconds"]},
		{"events in flight", "`outstanding_events × in_streams ÷ stream_seconds`", s.outstanding() * s["in_streams"] / s["stream_seconds"]},
		{"Pub/Sub", "`pubsub_streams × pubsub_stream_bytes ÷ message_bytes`", s["pubsub_streams"] * s["pubsub_stream_bytes"] / s["message_bytes"]},
	}
}

// lowest is the bound that limits an instance.
func (s scale) lowest() bound {
	return slices.MinFunc(s.bounds(), func(a, b bound) int { return cmp.Compare(a.rate, b.rate) })
}

func (s scale) boundRows() string {
	var b strings.Builder
	b.WriteString("| bound | how | events/s |\n|---|---|---|\n")
	for _, bound := range s.bounds() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", bound.name, bound.how, perSecond(bound.rate))
	}
	fmt.Fprintf(&b, "| **an instance** | the lowest | **%s** |\n", perSecond(s.lowest().rate))
	job := s["job_receive_seconds"] / s["job_interval_seconds"]
	fmt.Fprintf(&b, "| **a job**, on average | `× job_receive_seconds ÷ job_interval_seconds` | **%s** |\n", perSecond(s.lowest().rate*job))
	return b.String()
}

// latencyRows are for gateways of other speeds.
func (s scale) latencyRows() string {
	var b strings.Builder
	b.WriteString("| `stream_seconds` | events in flight allow, events/s | an instance, events/s | limited by |\n|---|---|---|---|\n")
	for _, seconds := range []float64{0.05, 0.25, 0.5, 1} {
		other := maps.Clone(s)
		other["stream_seconds"] = seconds
		fmt.Fprintf(&b, "| %v | %s | %s | %s |\n", seconds, perSecond(other.bounds()[2].rate), perSecond(other.lowest().rate), other.lowest().name)
	}
	return b.String()
}

func (s scale) loadRows() string {
	var b strings.Builder
	b.WriteString("| load, events/s | publishers | kind | instances | each, events/s | streams/s to the gateway | streams in flight, each | from Pub/Sub |\n|---|---|---|---|---|---|---|---|\n")
	for _, load := range []float64{100, 1000, 10_000, 100_000, 1_000_000} {
		for _, publishers := range []float64{10, 100} {
			rate := s.lowest().rate
			kind, instances := "job or service", 1.0
			if load > rate*s["job_receive_seconds"]/s["job_interval_seconds"] {
				kind, instances = "service", math.Ceil(load/rate)
			}
			each := load / instances
			// A batch has the events that a publisher publishes while the batch waits: for the
			// batch delay, or less if the events in flight reach their bound before.
			wait := min(s["batch_delay_seconds"], s.outstanding()/each-s["stream_seconds"])
			batch := min(s["batch_events"], max(1, each/publishers*wait))
			fmt.Fprintf(&b, "| %s | %.0f | %s | %s | %s | %s | %s | %s/s |\n", humanize.Comma(int64(load)), publishers, kind, humanize.Comma(int64(instances)),
				perSecond(each), perSecond(load/batch), perSecond(math.Ceil(each/batch*s["stream_seconds"])), humanize.Bytes(uint64(load*s["message_bytes"])))
		}
	}
	return b.String()
}

// perSecond rounds to two digits, because the estimates are no better.
func perSecond(n float64) string {
	unit := math.Pow(10, max(0, math.Floor(math.Log10(n))-1))
	return humanize.Comma(int64(math.Round(n/unit) * unit))
}

// TestScalingArithmetic does the arithmetic of docs/scaling.md again.
func TestScalingArithmetic(t *testing.T) {
	content, err := os.ReadFile(scalingDoc)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	s := readScale(t, text)
	if len(s) != 15 {
		t.Fatalf("%d inputs: %v", len(s), s)
	}
	defaults, err := config.Load([]string{"GOOGLE_CLOUD_PROJECT=my-project", "SAMS_CLIENT_ID=a", "SAMS_CLIENT_SECRET=b"}, config.ForRun)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{
		"batch_events": float64(defaults.BatchMaxEvents), "batch_delay_seconds": defaults.BatchMaxDelay.Seconds(), "streams": float64(defaults.MaxStreams()),
		"outstanding_events": float64(defaults.MaxOutstandingEvents), "outstanding_bytes": float64(defaults.MaxOutstandingBytes),
	} {
		if s[name] != want {
			t.Errorf("%s is %v, and by default %v", name, s[name], want)
		}
	}
	// Every input decides something.
	for name := range s {
		other, less := maps.Clone(s), maps.Clone(s)
		other[name] *= 1000
		less[name] /= 1000
		if reflect.DeepEqual([]string{other.boundRows(), other.loadRows()}, []string{s.boundRows(), s.loadRows()}) &&
			reflect.DeepEqual([]string{less.boundRows(), less.loadRows()}, []string{s.boundRows(), s.loadRows()}) {
			t.Errorf("%s changes nothing", name)
		}
	}
	want := text
	for marker, rows := range map[string]string{"bounds": s.boundRows(), "latencies": s.latencyRows(), "loads": s.loadRows()} {
		part := regexp.MustCompile(`(?s)<!-- ` + marker + ` -->\n.*?<!-- end -->`)
		if !part.MatchString(want) {
			t.Fatalf("there is no place for %s", marker)
		}
		want = part.ReplaceAllLiteralString(want, "<!-- "+marker+" -->\n"+rows+"<!-- end -->")
	}
	switch {
	case want == text:
	case *updateScaling:
		if err := os.WriteFile(scalingDoc, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("docs/scaling.md is not what its inputs give; run go test ./cmd/worker -run TestScalingArithmetic -scaling.update\nwant:\n%s\n%s\n%s", s.boundRows(), s.latencyRows(), s.loadRows())
	}
}
