package dlqui

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"time"
)

// kind is the purpose of a run.
type kind string

const (
	planning  kind = "planning"
	applying  kind = "applying"
	restoring kind = "restoring"
	asking    kind = "asking for receipts"
)

// run is a command that runs in the background for an operation. A nil run was never
// started.
type run struct {
	kind   kind
	args   []string
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{} // closed when the command has ended

	mu     sync.Mutex // guards what follows: the run's goroutine writes, requests read
	stderr bytes.Buffer
	end    runEnd // final once done is closed
}

// runEnd says how a run has ended.
type runEnd struct {
	status  int
	stopped bool // by a person, or by the end of the server
}

// maxSaid bounds the output to a person that is kept, in bytes.
const maxSaid = 256 << 10

// run runs the command to its end.
func (r *run) run(ctx context.Context, of commands) {
	defer close(r.done)
	status := of.Run(ctx, r.args, io.Discard, said{r})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end = runEnd{status, ctx.Err() != nil}
}

// active reports whether the command runs.
func (r *run) active() bool {
	if r == nil {
		return false
	}
	select {
	case <-r.done:
		return false
	default:
		return true
	}
}

// allowsAsking reports whether receipts may be asked for after this latest run: nothing
// runs, and an earlier question began at least so long ago.
func (r *run) allowsAsking(now time.Time, every time.Duration) bool {
	return r == nil || !r.active() && (r.kind != asking || now.Sub(r.began) >= every)
}

// said is the stderr of a command, on which it speaks to a person.
type said struct{ run *run }

// Write keeps the text up to maxSaid.
func (s said) Write(p []byte) (int, error) {
	s.run.mu.Lock()
	defer s.run.mu.Unlock()
	if room := maxSaid - s.run.stderr.Len(); room > 0 {
		s.run.stderr.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// runPhase says whether a command runs, or how it has ended.
type runPhase string

const (
	runActive  runPhase = "active"
	runStopped runPhase = "stopped" // by a person
	runFailed  runPhase = "failed"
	runEnded   runPhase = "ended"
)

// runState is what a page shows of a run.
type runState struct {
	Kind    kind
	Command string
	Began   time.Time
	Phase   runPhase
	Lines   []string
}

// phase returns the phase of a command that has ended so.
func (e runEnd) phase() runPhase {
	switch {
	case e.stopped:
		return runStopped
	case e.status != 0:
		return runFailed
	}
	return runEnded
}

func (r *run) snapshot() *runState {
	if r == nil {
		return nil
	}
	active := r.active()
	r.mu.Lock()
	defer r.mu.Unlock()
	st := &runState{Kind: r.kind, Command: strings.TrimSuffix(shell(r.args...), " --output json"), Began: r.began, Phase: r.end.phase(), Lines: linesOf(r.stderr.String())}
	if active {
		st.Phase = runActive
	}
	return st
}

// linesOf returns the lines of a command's stderr that a page shows. It omits the audit
// records, which the audit file has.
func linesOf(stderr string) []string {
	var all []string
	for line := range strings.SplitSeq(strings.TrimRight(stderr, "\n"), "\n") {
		if line != "" && !strings.Contains(line, `"audit":true`) {
			all = append(all, strings.TrimPrefix(line, "worker: "))
		}
	}
	return all
}
