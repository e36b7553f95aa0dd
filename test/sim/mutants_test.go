package sim_test

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// These tests test the simulation: each mutant is a bug that a developer could make, and
// the simulation must find it. A mutant is a replacement in one file, applied in an overlay
// of the build, so the code itself stays clean. A mutant that no longer applies fails the
// test.

var (
	mutantsFlag = flag.String("sim.mutants", "some", "which seeded bugs are tried: all, none, some (a part of them), or a name")
	mutantSeeds = flag.Int("sim.mutant-seeds", 1000, "how many seeds may be needed to find a seeded bug")
)

type mutant struct {
	name string
	file string // from the module's root
	old  string
	new  string
	run  string  // the tests that must find it; "" means TestKnownGatewayFailures and TestSeeds
	more *mutant // a second replacement, if another part of the code makes up for the first alone
	// slow: hundreds of seeds are needed to find it, which takes minutes. Only all tries it.
	slow bool
}

var mutants = []mutant{
	{
		name: "acknowledge before the id is listed", file: "internal/relay/loop.go",
		old: "	l.settlement.accounting.Batches++\n",
		new: "	l.settlement.accounting.Batches++\n	for _, e := range s.events {\n		l.settlement.acker.Ack(append(l.settlement.acked[:0:0], e.message))\n	}\n",
	},
	{
		name: "redeliveries known by id alone", file: "internal/dedup/dedup.go",
		old: "	binary.LittleEndian.PutUint64(b[16:], maphash.Bytes(h.data, data))\n",
		new: "",
	},
	{
		name: "an id listed once settles all events of that id", run: "^TestCollisionsAreRecorded$", file: "internal/submit/listing.go",
		old: "		if recorded == 0 || recorded == len(same) {\n			continue\n		}\n		for _, i := range same {\n			listed[i] = false",
		new: "		if recorded == 0 || recorded == len(same) || true {\n			for _, i := range same {\n				listed[i] = recorded > 0\n			}\n			continue\n		}\n		for _, i := range same {\n			listed[i] = false",
	},
	{
		name: "the first events of an id are taken for those that are listed", run: "^TestCollisionsAreRecorded$", file: "internal/submit/listing.go",
		old: "		if recorded == 0 || recorded == len(same) {",
		new: "		if true {",
	},
	{
		name: "a collision is submitted again as it was", run: "^TestCollisionsAreRecorded$", file: "internal/relay/collision.go",
		old: "	return min(n, max(2, 2*(n-c.recorded)))",
		new: "	return min(n, 1)",
	},
	{
		name: "environments have turns of their own", run: "^TestFloodDelaysNoOtherService$", file: "internal/relay/inflight.go",
		old: "service: s.serviceOf(id.ServiceID)}",
		new: "service: func() *service { own := *s.serviceOf(id.ServiceID); return &own }()}",
	},
	{
		name: "controls wait for the flood of another service", run: "^TestControlsDoNotWaitForAFlood$", file: "internal/relay/loop.go",
		old: "	l.suspects.controls.freeLight()\n",
		new: "",
	},
	{
		name: "a lone service with few events keeps them back", run: "^TestFloodDelaysNoOtherService$", file: "internal/relay/controls.go",
		old: " || len(c.inflight.events) < 2*minControls",
		new: "",
	},
	{
		name: "events that the gateway loses do not count", file: "internal/verdict/verdict.go",
		old: "		lost, observed = h.lost-s.lost, observed+h.observed-s.observed\n",
		new: "		observed += h.observed - s.observed\n",
	},
	{
		name: "events that are left out beside a suspect are rejected with it", file: "internal/relay/suspects.go",
		old: "	sub.events = nil\n}\n",
		new: "	sub.events = nil\n	for _, c := range s.controls.leftOut {\n		for _, o := range c.events {\n			if !o.settled {\n				s.deadLetters.reject(o, event.GatewayRejected, \"\")\n			}\n		}\n	}\n	s.controls.leftOut = nil\n}\n",
	},
	{
		name: "a control is submitted twice", file: "internal/relay/controls.go", slow: true,
		old: "		last.events = last.events[:n]\n",
		new: "",
	},
	{
		name: "controls are forgotten", file: "internal/relay/controls.go",
		old: "	for _, s := range takePart(&c.leftOut) {\n		c.queue.push(s)\n	}\n",
		new: "	takePart(&c.leftOut)\n",
	},
	{
		name: "a drain does not wait for undecided events", file: "internal/relay/loop.go",
		old: "	return l.inflight.count == l.inflight.leftOut && now.Sub(l.settlement.latest) >= wait && now.Sub(l.run.lastBusy) >= wait\n",
		new: "	_ = wait\n	return l.inflight.count == l.inflight.leftOut\n",
	},
	{
		name: "a single undecided event fails the run", file: "internal/relay/undecided.go",
		old: "	case u.count > maxUndecided:",
		new: "	case u.count > 0:",
	},
	{
		name: "the breaker never opens for silence", file: "internal/verdict/verdict.go",
		old: "h.silent >= silentAnswers && h.others",
		new: "false && h.others",
	},
	{
		name: "an event is condemned although WORKER_REJECT_AFTER is 0", run: "^TestBadEventIsKeptIfNoneMayBeRejected$", file: "internal/verdict/verdict.go",
		old: "	return h.Rules.RejectAfter > 0 &&\n",
		new: "	return true &&\n",
	},
	{
		name: "a passing failure counts against the event", file: "internal/relay/refusals.go",
		old: "	if h.recordedAt < f.since || h.recordedAt < h.failedAt {\n		return false\n	}\n",
		new: "",
	},
	{
		name: "a refusal without its control", file: "internal/submit/client.go",
		old: "r.Failure.Class = c.whoseFault(ctx, b)",
		new: "r.Failure.Class = IdentityRefused",
	},
	{
		name: "a refused token is not replaced", file: "internal/submit/client.go",
		old: "c.tokens.Invalidate(token)",
		new: "_ = token",
	},
	{
		name: "a stale ack id", file: "internal/consume/leases.go",
		old: "			m.ackID, m.due, m.receipt = r.ackID, due, false",
		new: "			m.due, m.receipt = due, false",
	},
	{
		name: "leases are not extended", file: "internal/consume/extend.go",
		old: "			return sent.Add(lease / leaseShare)",
		new: "			return sent.Add(time.Hour)",
	},
	{
		name: "receipts are late", file: "internal/consume/leases.go",
		old: "	due := now.Sub(l.epoch)",
		new: "	due := now.Add(5 * time.Second).Sub(l.epoch)",
	},
	{
		name: "a silent stream is not opened again", file: "internal/consume/stream.go",
		old: "		if reading.silent(pinged, now, in.Answer) {",
		new: "		if false && reading.silent(pinged, now, in.Answer) {",
	},
	{
		name: "one refusal of a stream ends the run", file: "internal/consume/health.go",
		old: "refused < h.patience {",
		new: "refused < 0 {",
	},
	{
		name: "an acknowledgement that failed is not repeated", file: "internal/consume/leases.go",
		old: "		if fates[i] == again || p.message.ackID != p.ackID {",
		new: "		if false && fates[i] == again || p.message.ackID != p.ackID {",
	},
	{
		name: "the last acknowledgements are not waited for", file: "internal/relay/stop.go",
		old: "if err := receiver.Flush(ctx); err != nil {",
		new: "if err := error(nil); err != nil {",
	},
	{
		name: "receiving goes on while the breaker is open", file: "internal/relay/availability.go",
		old: "	a.run.metrics.GatewayAvailable.Set(0)\n	a.receiving.stop()",
		new: "	a.run.metrics.GatewayAvailable.Set(0)",
	},
	{
		name: "events in flight are released at once after a failure", file: "internal/relay/settle.go",
		old: "	s.expired = append(s.expired, m)\n",
		new: "	s.nacked = append(s.nacked, m)\n",
	},
	{
		name: "messages are released again and again in a long outage", file: "internal/relay/settle.go",
		old: "maxInFlight = 10 * time.Minute",
		new: "maxInFlight = 10 * time.Second",
	},
	{
		name: "events that were listed before a cut are submitted again", file: "internal/relay/results.go",
		old: "		case result.Listed != nil && result.Listed[i]:",
		new: "		case result.Listed != nil && result.Listed[i] && result.Failure == nil:",
	},
	{
		name: "further deliveries are not settled", file: "internal/relay/settle.go",
		old: "	s.settleRedeliveries(e)\n	s.remove(e, wasRecorded)\n",
		new: "	s.remove(e, wasRecorded)\n",
	},
	{
		name: "the idle clock runs while the breaker is open", file: "internal/relay/loop.go",
		old:  "		ready: l.availability.breaker.Closed() && l.deadLetters.unavailable == \"\" &&\n			l.receiving.preflight == preflightPassed && l.receiving.open(now),",
		new:  "		ready: l.receiving.preflight == preflightPassed,",
		more: &mutant{file: "internal/relay/availability.go", old: "	a.run.metrics.GatewayAvailable.Set(1)\n	a.run.lastBusy = now\n", new: "	a.run.metrics.GatewayAvailable.Set(1)\n"},
	},
	{
		name: "the bound on events in flight is not kept", run: "^TestEventsInFlightAreBounded$", file: "internal/consume/leases.go",
		old: "len(l.outstanding) < l.maxEvents && l.bytes < l.maxBytes",
		new: "true || len(l.outstanding) < l.maxEvents",
	},
	{
		name: "a failed dead-letter write is not repeated", file: "internal/relay/deadletters.go",
		old: "		q.add(e, q.inflight.serviceOfMessage(e.message))\n",
		new: "		q.settlement.eventDeadLettered(e, now)\n",
	},
}

// TestMutantsAreCounted compares the number in docs/reliability.md with the number of
// seeded bugs.
func TestMutantsAreCounted(t *testing.T) {
	text, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(" %d seeded bugs ", len(mutants)); !strings.Contains(string(text), want) {
		t.Errorf("docs/reliability.md does not say that there are%s", want)
	}
}

func TestMutants(t *testing.T) {
	if testing.Short() || *mutantsFlag == "none" {
		t.Skip("The seeded bugs are not tried: -sim.mutants=none, or -short.")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range mutants {
		t.Run(strings.ReplaceAll(m.name, " ", "_"), func(t *testing.T) {
			dir := t.TempDir()
			replace := map[string]string{}
			for at := &m; at != nil; at = at.more {
				replace[filepath.Join(root, at.file)] = at.write(t, root, dir)
			}
			if !m.chosen(i) {
				t.Skip("not its turn; -sim.mutants=all tries it")
			}
			find(t, root, dir, cmp.Or(m.run, "^(TestKnownGatewayFailures|TestSeeds)$"), replace)
		})
	}
}

// write writes the file with the bug and returns its name.
func (m mutant) write(t *testing.T, root, dir string) string {
	source, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("%s has the text to replace %d times, want once: fix the mutant", m.file, n)
	}
	changed := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(changed, []byte(strings.Replace(string(source), m.old, m.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	return changed
}

// chosen reports whether it is a mutant's turn. Each run tries a part of them, to be quick.
// The part depends on their number.
func (m mutant) chosen(i int) bool {
	switch *mutantsFlag {
	case "all":
		return true
	case "some":
		const parts = 6
		return !m.slow && i%parts == len(mutants)%parts
	}
	return strings.Contains(m.name, *mutantsFlag)
}

// find builds the simulation with the bug and expects these tests to fail.
func find(t *testing.T, root, dir, tests string, replace map[string]string) {
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlayFile, "-o", binary, "./test/sim")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not build: %v\n%s", err, out)
	}
	run := exec.CommandContext(t.Context(), binary, "-test.run", tests, "-test.timeout", "15m", "-test.failfast", "-sim.violations", "1",
		fmt.Sprintf("-sim.seeds=%d", *mutantSeeds))
	run.Dir = dir
	out, err := run.CombinedOutput()
	if err == nil || strings.Contains(string(out), "test timed out") {
		t.Fatalf("%d seeds did not find it\n%s", *mutantSeeds, out)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if strings.Contains(line, "rows_test.go") || strings.Contains(line, "fair_test.go") || strings.Contains(line, "seed ") && strings.Contains(line, ": ") || strings.Contains(line, "panic:") || strings.Contains(line, "seeds in") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
