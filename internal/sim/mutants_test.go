package sim_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The simulation is itself put to the test: each mutant is a bug that somebody
// could make, and the simulation must find it. A mutant is a replacement in one
// file, applied in an overlay of the build, so the code itself stays clean; one
// that no longer applies fails the test.

var (
	mutantsFlag = flag.String("sim.mutants", "some", "which seeded bugs are tried: all, none, some (a part of them, in turn by the day of the commit), or a name")
	mutantSeeds = flag.Int("sim.mutant-seeds", 1000, "how many seeds may be needed to find a seeded bug")
)

type mutant struct {
	name string
	file string // from the module's root
	old  string
	new  string
}

var mutants = []mutant{
	{"acknowledge before the id is listed", "internal/relay/flight.go",
		"		h.sent++\n", "		h.sent++\n		r.receiver.Ack([]*consume.Message{h.message})\n"},
	{"duplicates by id alone", "internal/relay/held.go",
		"		if at.digest == h.digest {", "		if at.digest == h.digest || true {"},
	{"recorded events remembered by id alone", "internal/relay/recent.go",
		"	binary.LittleEndian.PutUint64(b[16:], h.digest)\n", ""},
	{"different events with one id share a stream", "internal/relay/held.go",
		"h.older, h.lane = newest, newest.lane+1", "h.older, h.lane = newest, newest.lane"},
	{"omissions counted in an outage", "internal/relay/outcome.go",
		"	case r.gate.shut, r.flights.ignoredAt > f.launched:\n		return false // the gateway seems to record nothing at all\n	case othersRecorded:",
		"	case othersRecorded || true:"},
	{"fresh events left out as a whole are no outage", "internal/relay/outcome.go",
		"	if !partly && !f.suspect && (r.flights", "	if false && !partly && !f.suspect && (r.flights"},
	{"a probe without events opens a gate that is shut for silence", "internal/relay/gate.go",
		"	if g.mute {", "	if false && g.mute {"},
	{"suspects are judged as fresh events", "internal/relay/outcome.go",
		"suspects := &flight{publisher: f.publisher, suspect: true}", "suspects := &flight{publisher: f.publisher}"},
	{"a passing failure counts against the event", "internal/relay/outcome.go",
		"	if r.flights.recordedAt < f.trouble || r.flights.recordedAt < r.flights.failedAt {\n		return false\n	}\n", ""},
	{"a refusal without its control", "internal/submit/client.go",
		"r.Failure.Class = c.whoseFault(ctx, b)", "r.Failure.Class = IdentityRefused"},
	{"a refused token is not replaced", "internal/submit/client.go",
		"c.tokens.Invalidate(token)", "_ = token"},
	{"a stale ack id", "internal/consume/leases.go",
		"			m.ackID, m.until = r.GetAckId(), until", "			m.until = until"},
	{"a delivery during the acknowledgement is forgotten", "internal/consume/leases.go",
		"		if !done || p.message.ackID != p.ackID {", "		if !done {"},
	{"leases are not extended", "internal/consume/receiver.go",
		"	margin := r.opts.LeaseDuration * 2 / 3", "	margin := -r.opts.LeaseDuration"},
	{"an acknowledgement that failed is not repeated", "internal/consume/leases.go",
		"		if !done || p.message.ackID != p.ackID {", "		if p.message.ackID != p.ackID {"},
	{"the last acknowledgements are not waited for", "internal/relay/stop.go",
		"if err := r.receiver.Flush(ctx); err != nil {", "if err := error(nil); err != nil {"},
	{"pulling goes on while the gate is shut", "internal/relay/gate.go",
		"	r.m.GatewayAvailable.Set(0)\n	r.stopPulling()", "	r.m.GatewayAvailable.Set(0)"},
	{"what a broken process held is released at once", "internal/relay/arrive.go",
		"		r.abandoned = append(r.abandoned, h.message)", "		r.released = append(r.released, h.message)"},
	{"released at every look of a long outage", "internal/relay/loop.go",
		"maxHold = 10 * time.Minute", "maxHold = 10 * time.Second"},
	{"what was listed before a cut is submitted again", "internal/relay/outcome.go",
		"		case o.result.Listed != nil && o.result.Listed[i]:", "		case o.result.Listed != nil && o.result.Listed[i] && o.result.Failure == nil:"},
	{"further deliveries are not settled", "internal/relay/settle.go",
		"	r.acked = append(r.acked, h.message)\n	r.settleTwins(h)\n	r.letGo(h)\n}\n\n// interred", "	r.acked = append(r.acked, h.message)\n	r.letGo(h)\n}\n\n// interred"},
	{"a drain ends behind a shut gate", "internal/relay/loop.go",
		"	if r.gate.shut || r.gate.trial || r.graveyard.away != \"\" || !r.cleared || !r.receiver.Receiving() {", "	if !r.cleared {"},
	{"the bound on what is held is not kept", "internal/consume/leases.go",
		"len(l.held) < l.maxEvents && l.bytes < l.maxBytes", "true || len(l.held) < l.maxEvents"},
	{"a dead letter that failed is not repeated", "internal/relay/bury.go",
		"		r.graves = append(again, r.graves...)", "		for _, h := range again {\n			r.interred(h)\n		}"},
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
			source, err := os.ReadFile(filepath.Join(root, m.file))
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(source), m.old); n != 1 {
				t.Fatalf("%s has the text to replace %d times, want once: mend the mutant", m.file, n)
			}
			if !m.chosen(i) {
				t.Skip("not its turn; -sim.mutants=all tries it")
			}
			m.find(t, root, string(source))
		})
	}
}

// chosen reports whether it is a mutant's turn. A part of them in each run keeps
// the tests quick; which part depends on the length of this very file, so that it
// changes now and then, and not between two runs of the same tree.
func (m mutant) chosen(i int) bool {
	switch *mutantsFlag {
	case "all":
		return true
	case "some":
		const parts = 6
		return i%parts == len(mutants)%parts
	}
	return strings.Contains(m.name, *mutantsFlag)
}

// find builds the simulation with the bug and expects it to fail.
func (m mutant) find(t *testing.T, root, source string) {
	dir := t.TempDir()
	changed := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(changed, []byte(strings.Replace(source, m.old, m.new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, m.file): changed}})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile, binary := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "sim.test")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlayFile, "-o", binary, "./internal/sim")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the mutant does not build: %v\n%s", err, out)
	}
	run := exec.CommandContext(t.Context(), binary, "-test.run", "^TestSeeds$", "-test.timeout", "100s", "-sim.violations", "1",
		fmt.Sprintf("-sim.seeds=%d", *mutantSeeds))
	run.Dir = dir
	out, err := run.CombinedOutput()
	if err == nil {
		t.Fatalf("%d seeds did not find it\n%s", *mutantSeeds, out)
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if strings.Contains(line, "seed ") && strings.Contains(line, ": ") || strings.Contains(line, "panic:") || strings.Contains(line, "seeds in") {
			t.Log(strings.TrimSpace(line))
		}
	}
}
