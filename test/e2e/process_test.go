package e2e_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// process is a running worker.
type process struct {
	t              *testing.T
	cmd            *exec.Cmd
	stdout, stderr testenv.Buffer
	started        time.Time
	done           chan struct{} // closed when it has ended
}

// result is the exit status and the output of a worker.
type result struct {
	t              *testing.T
	status         int
	stdout, stderr string
	took           time.Duration
}

// summary is the last line of a run.
type summary struct {
	Received   int            `json:"received"`
	Submitted  int            `json:"submitted"`
	Rejected   map[string]int `json:"rejected"`
	Duplicates int            `json:"duplicates"`
	Released   int            `json:"released"`
	Batches    int            `json:"batches"`
	Ended      string         `json:"ended"`
	Seconds    float64        `json:"duration_seconds"`
}

// start starts the binary. It is killed when the test ends, if it has not ended
// by then.
func start(t *testing.T, environ []string, stdin io.Reader, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(workerBinary, args...), done: make(chan struct{}), started: time.Now()}
	p.cmd.Env, p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = environ, stdin, &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the test checks the status
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		<-p.done
		if t.Failed() {
			t.Logf("worker %s: status %d\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), p.cmd.ProcessState.ExitCode(), clip(p.stdout.String()), clip(p.stderr.String()))
		}
	})
	return p
}

// execute runs the binary to its end.
func execute(t *testing.T, environ []string, stdin io.Reader, args ...string) result {
	t.Helper()
	return start(t, environ, stdin, args...).wait()
}

// start starts `worker run`.
func (h *env) start(vars ...string) *process {
	h.t.Helper()
	return start(h.t, h.environ(vars...), nil, "run")
}

// startReady starts `worker run` with its endpoints, and waits until it is ready.
func (h *env) startReady(vars ...string) *process {
	h.t.Helper()
	return h.startReadyAs("", vars...)
}

// startReadyAs is startReady with the token that the endpoints require.
func (h *env) startReadyAs(token string, vars ...string) *process {
	h.t.Helper()
	p := h.start(append(vars, "WORKER_DIAGNOSTICS_ADDR="+freeAddr(h.t))...)
	p.eventuallyAnswers("/-/readyz", token, http.StatusOK)
	return p
}

// run runs `worker run` to its end.
func (h *env) run(vars ...string) result {
	h.t.Helper()
	return h.start(vars...).wait()
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// wait waits for the end. A drain waits up to two minutes for undecided events.
func (p *process) wait() result {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience + 2*time.Minute):
		p.t.Fatalf("the worker still runs after %v", time.Since(p.started))
	}
	return result{
		t: p.t, status: p.cmd.ProcessState.ExitCode(),
		stdout: p.stdout.String(), stderr: p.stderr.String(), took: time.Since(p.started),
	}
}

// stop ends the worker with a signal.
func (p *process) stop(s os.Signal) result {
	p.t.Helper()
	p.signal(s)
	return p.wait()
}

// says waits until the worker has logged something.
func (p *process) says(text string) {
	p.t.Helper()
	testenv.Eventually(p.t, "the worker says "+text, func() bool {
		select {
		case <-p.done:
			if !strings.Contains(p.stderr.String(), text) {
				p.t.Fatalf("the worker has ended without saying %q", text)
			}
		default:
		}
		return strings.Contains(p.stderr.String(), text)
	})
}

// exits requires an exit status.
func (r result) exits(status int) result {
	r.t.Helper()
	if r.status != status {
		r.t.Errorf("exit status %d, want %d", r.status, status)
	}
	return r
}

// summary reads the last line on stdout, strictly, and checks the accounting.
func (r result) summary() summary {
	r.t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.stdout, "\n"), "\n")
	d := json.NewDecoder(strings.NewReader(lines[len(lines)-1]))
	d.DisallowUnknownFields()
	s := summary{Received: -1, Submitted: -1, Duplicates: -1, Released: -1, Batches: -1, Seconds: -1}
	if err := d.Decode(&s); err != nil {
		r.t.Fatalf("the last line on stdout is no summary: %v", err)
	}
	rejected := 0
	for _, n := range s.Rejected {
		rejected += n
	}
	if s.Received != s.Submitted+rejected+s.Duplicates+s.Released {
		r.t.Errorf("the accounting does not balance: %+v", s)
	}
	if s.Received < 0 || s.Submitted < 0 || s.Duplicates < 0 || s.Released < 0 || s.Batches < 0 || s.Rejected == nil {
		r.t.Errorf("the summary is incomplete: %s", lines[len(lines)-1])
	}
	if s.Seconds < 0 || s.Seconds > r.took.Seconds() {
		r.t.Errorf("duration_seconds is %v, and the process ran %v", s.Seconds, r.took)
	}
	return s
}

// sums compares a whole summary, except for batches and duration, which depend on how the
// events happened to arrive.
func (r result) sums(want summary) {
	r.t.Helper()
	got := r.summary()
	if want.Rejected == nil {
		want.Rejected = map[string]int{}
	}
	want.Batches, want.Seconds = got.Batches, got.Seconds
	if diff := cmp.Diff(want, got); diff != "" {
		r.t.Errorf("the summary differs (-want +got):\n%s", diff)
	}
	if (got.Submitted > 0) != (got.Batches > 0) && got.Released == 0 {
		r.t.Errorf("%d batches for %d events", got.Batches, got.Submitted)
	}
}

// clip keeps a failed test readable.
func clip(s string) string {
	const limit = 6000
	if len(s) > limit {
		return s[:limit/2] + "\n[…]\n" + s[len(s)-limit/2:]
	}
	return s
}
