package chaos_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a running worker.
type process struct {
	w              *env
	name           string
	cmd            *exec.Cmd
	stdout, stderr output
	started        time.Time
	done           chan struct{} // closed when it has ended

	mu       sync.Mutex
	killed   bool
	signaled time.Time // time of the first signal
}

// summary is the last line of a run.
type summary struct {
	Received, Submitted int
	Rejected            map[string]int
	Duplicates          int
	Released            int
	Ended               string
}

// start starts `worker run`.
func (w *env) start(name string, vars ...string) *process {
	p := &process{w: w, name: name, cmd: exec.Command(workerBinary, "run"), done: make(chan struct{}), started: time.Now()}
	p.cmd.Env = append([]string{
		"GOOGLE_CLOUD_PROJECT=" + w.project,
		"PUBSUB_EMULATOR_HOST=" + w.link.addr(),
		"TELEMETRY_GATEWAY_URL=" + w.gateway.URL(),
		"SAMS_URL=" + w.sams.URL(),
		"SAMS_CLIENT_ID=" + clientID,
		"SAMS_CLIENT_SECRET=" + clientSecret,
		"ENVIRONMENT_ID=" + environmentID,
		"WORKER_INSECURE_DEV=true",
		"WORKER_BATCH_MAX_DELAY=100ms",
		"WORKER_BATCH_MAX_EVENTS=100",
		"WORKER_SUBMIT_TIMEOUT=3s",
		"WORKER_SHUTDOWN_TIMEOUT=4s",
		"WORKER_REJECT_AFTER=3",
		"WORKER_SERVICES=" + services,
		"LOG_LEVEL=debug",
		"LOG_FORMAT=json",
	}, vars...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		w.ledger.violation("start a worker: %v", err)
		close(p.done)
		return p
	}
	p.name += fmt.Sprintf(" (process %d)", p.cmd.Process.Pid)
	w.mu.Lock()
	w.old = append(w.old, p)
	w.mu.Unlock()
	go func() {
		_ = p.cmd.Wait() // the status is checked below
		p.audit()
		close(p.done)
	}()
	w.t.Cleanup(p.kill)
	return p
}

func (p *process) status() int {
	if p.cmd.ProcessState == nil {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

// kill ends the process and waits for its end.
func (p *process) kill() {
	p.mu.Lock()
	p.killed = true
	p.mu.Unlock()
	if p.cmd.Process != nil {
		_ = p.cmd.Process.Kill() // it may have ended
	}
	<-p.done
}

// terminate asks the process to stop. It does so once, because a second signal would end
// the process at once.
func (p *process) terminate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.signaled.IsZero() {
		return
	}
	p.signaled = time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
}

func (p *process) signal(s os.Signal) { _ = p.cmd.Process.Signal(s) }

// wait waits for the end of the process, which must come in time.
func (p *process) wait(limit time.Duration) {
	select {
	case <-p.done:
	case <-time.After(limit):
		p.w.ledger.violation("%s still runs after %v", p.name, limit)
		p.kill()
	}
}

func (p *process) summary() (s summary, ok bool) {
	lines := strings.Split(strings.TrimSpace(p.stdout.tail(2000)), "\n")
	return s, json.Unmarshal([]byte(lines[len(lines)-1]), &s) == nil
}

// audit checks the exit status and the output of the process.
func (p *process) audit() {
	p.mu.Lock()
	killed, signaled := p.killed, p.signaled
	p.mu.Unlock()
	bad := func(format string, args ...any) { p.w.ledger.violation(p.name+": "+format, args...) }
	for _, o := range []*output{&p.stdout, &p.stderr} {
		for _, secret := range forbiddenWords {
			if o.seen(secret) {
				bad("%q is in its output", secret)
			}
		}
	}
	if killed {
		return
	}
	s, ok := p.summary()
	p.w.note("%s ended with status %d: %s", p.name, p.status(), strings.TrimSpace(p.stdout.tail(600)))
	rejected := 0
	for _, n := range s.Rejected {
		rejected += n
	}
	switch {
	case p.status() == -1 && !signaled.IsZero() && p.stderr.tail(1) == "":
		// The process did not handle signals yet.
	case p.status() != 0 && p.status() != 1:
		bad("exit status %d", p.status())
	case !ok:
		bad("there is no summary")
	case s.Received != s.Submitted+rejected+s.Duplicates+s.Released:
		bad("the accounting is not balanced: %+v", s)
	case s.Ended == "drained" && p.status() != 0:
		bad("it has drained the subscription, and ended with status %d", p.status())
	case s.Ended == "error":
		bad("it ended by itself, because of a passing fault")
	case s.Ended == "signal" && signaled.IsZero():
		bad("nobody has sent it a signal")
	}
	if took := time.Since(signaled); !signaled.IsZero() && took > 12*time.Second {
		bad("it took %v to stop", took)
	}
}

// forbiddenWords must not be in any output of a worker.
var forbiddenWords = []string{clientSecret, marker, "sams_at_", "panic", "DATA RACE"}

// output keeps the end of a process's output, and looks for forbidden words in all of it.
type output struct {
	mu   sync.Mutex
	b    []byte
	rest []byte // of the last write, because a word may be split
	has  map[string]bool
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	look := append(o.rest, p...)
	for _, word := range forbiddenWords {
		if bytes.Contains(look, []byte(word)) {
			if o.has == nil {
				o.has = map[string]bool{}
			}
			o.has[word] = true
		}
	}
	o.rest = bytes.Clone(look[max(0, len(look)-30):])
	const size = 64 << 10
	o.b = append(o.b, p...)
	if len(o.b) > 2*size {
		o.b = bytes.Clone(o.b[len(o.b)-size:])
	}
	return len(p), nil
}

func (o *output) seen(word string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.has[word]
}

func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b[max(0, len(o.b)-n):])
}

// slot runs a worker, and starts another one when it has ended.
type slot struct {
	w    *env
	name string
	vars []string
	ctx  context.Context
	stop context.CancelFunc
	done chan struct{}

	mu      sync.Mutex
	current *process
}

func (w *env) newSlot(name string, restart time.Duration, vars ...string) *slot {
	s := &slot{w: w, name: name, vars: vars, done: make(chan struct{})}
	s.ctx, s.stop = context.WithCancel(w.t.Context())
	go func() {
		defer close(s.done)
		for n := 1; s.ctx.Err() == nil; n++ {
			p := w.start(fmt.Sprintf("%s, run %d", name, n), vars...)
			w.ledger.met("runs")
			s.mu.Lock()
			s.current = p
			s.mu.Unlock()
			select {
			case <-p.done:
				select {
				case <-time.After(restart):
				case <-s.ctx.Done():
				}
			case <-s.ctx.Done():
				p.terminate()
				p.wait(30 * time.Second)
			}
		}
	}()
	return s
}

// end stops the worker without a successor.
func (s *slot) end() {
	s.stop()
	<-s.done
}

// worker returns the running worker, or nil.
func (s *slot) worker() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil
	}
	select {
	case <-s.current.done:
		return nil
	default:
		return s.current
	}
}
