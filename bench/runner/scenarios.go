package runner

import (
	"fmt"
	"strings"

	"github.com/sourcegraph/telemetry-relay/bench/load"
)

// scenario is a set of cases that are measured in turn and compared.
type scenario struct {
	name, about string
	cases       func(o Options) []testCase
	runs        int // 0 means Options.Runs
}

type testCase struct {
	name string
	setup
}

var scenarios = []scenario{
	{name: "throughput", about: "a full backlog, beside consumers that only acknowledge", cases: func(o Options) []testCase {
		plan := load.Plan{Events: o.Events, Publishers: o.Publishers}
		return []testCase{
			{null, setup{consumer: null, plan: plan}},
			{raw, setup{consumer: raw, plan: plan}},
			{worker, setup{consumer: worker, plan: plan}},
		}
	}},
	{name: "floor", about: "the cost of each end alone: receiving, and sending batches of 1,000 and of 60 events", cases: func(o Options) []testCase {
		return []testCase{
			{raw, setup{consumer: raw, plan: load.Plan{Events: o.Events, Publishers: 10}}},
			{"submit 1,000", setup{consumer: bare, plan: load.Plan{Events: o.Events, Publishers: 10, Batch: 1000}}},
			{"submit 60", setup{consumer: bare, plan: load.Plan{Events: o.Events, Publishers: 500, Batch: 60}}},
			{"submit 60, a stream a publisher", setup{consumer: bare, plan: load.Plan{Events: o.Events, Publishers: 500, Batch: 60, KeepStreams: true}}},
		}
	}},
	{name: "latency", about: "1,000 events/s for 20 s: from publishing to being recorded", cases: func(Options) []testCase {
		plan := load.Plan{Events: 20_000, Publishers: 10, Rate: 1000}
		return []testCase{
			{"delay 1s", setup{consumer: worker, plan: plan}},
			{"delay 0", setup{consumer: worker, plan: plan, vars: []string{"WORKER_BATCH_MAX_DELAY=0"}}},
		}
	}, runs: 1},
	{name: "gateway", about: "a gateway that takes its time for each payload, and many publishers; 20 ms to Pub/Sub in the last cases", cases: func(o Options) []testCase {
		cases := []testCase{{null, setup{consumer: null, plan: load.Plan{Events: o.Events, Publishers: 500}}}}
		for _, at := range []struct{ latency, distance int }{{0, 0}, {50, 0}, {250, 0}, {500, 0}, {250, farPubsub}} {
			for _, p := range []int{3, 100, 500} {
				name := fmt.Sprintf("%d ms, %d publishers", at.latency, p) + far(at.distance)
				plan := load.Plan{Events: o.Events, Publishers: p, Latency: at.latency, PubsubDistance: at.distance}
				cases = append(cases, testCase{name, setup{consumer: worker, plan: plan}})
			}
		}
		return cases
	}, runs: 1},
	{name: "capacity", about: "a gateway that takes 100 payloads at once for 250 ms each, and 50 while the second third of the events is recorded", cases: func(o Options) (cases []testCase) {
		for _, distance := range []int{0, farPubsub} {
			plan := load.Plan{Events: o.Events, Publishers: 100, Latency: 250, Capacity: 100, PubsubDistance: distance}
			cases = append(cases, testCase{"100, 50, 100" + far(distance), setup{consumer: worker, plan: plan}})
		}
		return cases
	}, runs: 1},
	{name: "sharing", about: "ten workers, whose batches have at most 100 events, at a gateway that takes 100 payloads at once for 250 ms each", cases: func(o Options) []testCase {
		plan := load.Plan{Events: o.Events, Publishers: 100, Latency: 250, Capacity: 100, SteadyCapacity: true}
		return []testCase{{"10 workers", setup{consumer: worker, workers: 10, plan: plan, vars: []string{"WORKER_BATCH_MAX_EVENTS=100"}}}}
	}, runs: 1},
	{name: "noisy", about: "20,000 events/s of one publisher and 10 of each of 100 others for 20 s, 250 ms for a payload: the latencies are those of the others, without the first 5 s", cases: func(Options) (cases []testCase) {
		for _, distance := range []int{0, farPubsub} {
			plan := load.Plan{Events: 20 * 21_000, Publishers: 101, Rate: 21_000, Noisy: 21, WarmUp: 5, Latency: 250, PubsubDistance: distance}
			cases = append(cases, testCase{"1 noisy, 100 quiet" + far(distance), setup{consumer: worker, plan: plan}})
		}
		return cases
	}, runs: 1},
	{name: "size", about: "backlogs from 10 thousand to 5 million events", cases: func(Options) (cases []testCase) {
		for _, n := range []int{10_000, 100_000, 1_000_000, 5_000_000} {
			cases = append(cases, testCase{fmt.Sprintf("%d events", n), setup{consumer: worker, plan: load.Plan{Events: n, Publishers: 10}}})
		}
		return cases
	}, runs: 1},
	{name: "publishers", about: "from 1 to 500 publisher identities", cases: func(o Options) (cases []testCase) {
		for _, p := range []int{1, 10, 100, 500} {
			cases = append(cases, testCase{fmt.Sprintf("%d publishers", p), setup{consumer: worker, plan: load.Plan{Events: o.Events, Publishers: p}}})
		}
		return cases
	}},
	{name: "workers", about: "from 1 to 8 workers on one subscription, with four backlogs' events", cases: func(o Options) (cases []testCase) {
		for _, w := range []int{1, 2, 4, 8} {
			cases = append(cases, testCase{fmt.Sprintf("%d workers", w), setup{consumer: worker, workers: w, plan: load.Plan{Events: 4 * o.Events, Publishers: 10}}})
		}
		return cases
	}},
	{name: "rejects", about: "1 % and 20 % of the events invalid", cases: func(o Options) []testCase {
		return []testCase{
			{"no rejects", setup{consumer: worker, plan: load.Plan{Events: o.Events, Publishers: 10}}},
			{"1 % rejects", setup{consumer: worker, plan: load.Plan{Events: o.Events, Publishers: 10, RejectEvery: 100}}},
			{"20 % rejects", setup{consumer: worker, plan: load.Plan{Events: o.Events, Publishers: 10, RejectEvery: 5}}},
		}
	}},
	{name: "large", about: "events of 1 MB, with the gateway and during its outage", cases: func(Options) []testCase {
		return []testCase{{"1 MB", setup{consumer: worker, plan: load.Plan{Events: 2000, Publishers: 10, Padding: 1 << 20}}}, {"1 MB, gateway unavailable", setup{
			consumer: worker, plan: load.Plan{Events: 2000, Publishers: 10, Padding: 1 << 20, FailAfter: 20},
			vars: []string{"CLOUD_RUN_JOB=bench", "JOB_EXECUTION_DEADLINE=25s", "WORKER_SHUTDOWN_TIMEOUT=8s"}, unfinished: true,
		}}}
	}, runs: 1},
	{name: "values", about: "events that consist of a million values as small as can be, with an honest event of another service after each ten: peak memory is at most 3 × WORKER_MAX_OUTSTANDING_BYTES, 384 MiB; p50 and p99 are how long the honest ones wait once they are delivered", cases: func(o Options) (cases []testCase) {
		for _, value := range []string{"{}", "null", "1"} {
			plan := load.Plan{Events: 110, Publishers: 2, Padding: 2_700_000, Values: value, Flood: load.FloodNone, HonestEvery: 11}
			if value == "1" {
				plan.Events, plan.Padding = 275, 740_000 // which is 4 MB in the gateway's encoding
			}
			plan.Events = min(plan.Events, o.Events)
			cases = append(cases, testCase{value, setup{consumer: worker, plan: plan}})
		}
		return cases
	}, runs: 1},
	{name: "floods", about: "30,000 events with the nil UUID, and 10,000 environments with an event each, with an honest event among each ten: p50 and p99 are how long those wait once they are delivered", cases: func(Options) []testCase {
		return []testCase{
			{"no flood", setup{consumer: worker, plan: load.Plan{Events: 30_000, Publishers: 2, Flood: load.FloodNone, HonestEvery: 10}}},
			{"the nil UUID", setup{consumer: worker, plan: load.Plan{Events: 30_000, Publishers: 2, Flood: load.FloodID, HonestEvery: 10}}},
			{"environments", setup{consumer: worker, plan: load.Plan{Events: 10_000, Publishers: 2, Flood: load.FloodEnvironments, HonestEvery: 10}}},
		}
	}, runs: 1},
	{name: "start", about: "one event: from the start of the process to its being recorded", cases: func(Options) []testCase {
		return []testCase{{"1 event", setup{
			consumer: worker, plan: load.Plan{Events: 1, Publishers: 1}, vars: []string{"WORKER_BATCH_MAX_DELAY=0"},
		}}}
	}},
	{name: "idle", about: "one event, and then nothing for " + idle, cases: func(Options) []testCase {
		return []testCase{
			{"1 s", setup{consumer: worker, plan: load.Plan{Events: 1, Publishers: 1}}},
			{idle, setup{consumer: worker, plan: load.Plan{Events: 1, Publishers: 1}, vars: []string{"WORKER_DRAIN_IDLE=" + idle}}},
		}
	}, runs: 1},
}

// farPubsub is the round-trip time to Pub/Sub in some cases, in milliseconds.
const farPubsub = 20

// far returns the part of a case's name that has the round-trip time.
func far(distance int) string {
	if distance == 0 {
		return ""
	}
	return fmt.Sprintf(", %d ms to Pub/Sub", distance)
}

// idle is how long the worker idles in the scenario of that name.
const idle = "30s"

// Names lists the scenarios, one a line.
func Names() string {
	var b strings.Builder
	for _, s := range scenarios {
		fmt.Fprintf(&b, "%s: %s\n", s.name, s.about)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// chosen returns the scenarios that a list names.
func chosen(list string) (all []scenario, err error) {
	if list == "all" {
		return scenarios, nil
	}
next:
	for name := range strings.SplitSeq(list, ",") {
		for _, s := range scenarios {
			if s.name == strings.TrimSpace(name) {
				all = append(all, s)
				continue next
			}
		}
		return nil, fmt.Errorf("there is no scenario %q; expected all or some of:\n%s", name, Names())
	}
	return all, nil
}
