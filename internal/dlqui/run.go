package dlqui

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// kind is what a run does.
type kind string

const (
	planning  kind = "planning"
	applying  kind = "applying"
	restoring kind = "restoring"
	asking    kind = "asking for receipts"
)

// run is a command that runs in the background for an operation.
type run struct {
	kind   kind
	args   []string
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex // guards what follows
	stderr  bytes.Buffer
	stdout  bytes.Buffer
	ended   time.Time
	status  int
	stopped bool
}

// maxSaid bounds what a command may say, in bytes.
const maxSaid = 256 << 10

// said is the writer of what a command says to a person.
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

// runState is what a page shows of a run.
type runState struct {
	Kind    kind
	Command string
	Began   time.Time
	Active  bool
	Failed  bool
	Stopped bool
	Lines   []string
}

func (r *run) snapshot() *runState {
	if r == nil {
		return nil
	}
	active := true
	select {
	case <-r.done:
		active = false
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	st := &runState{Kind: r.kind, Command: strings.TrimSuffix(shell(r.args...), " --output json"), Began: r.began, Active: active, Failed: !active && r.status != 0, Stopped: r.stopped}
	for line := range strings.SplitSeq(strings.TrimRight(r.stderr.String(), "\n"), "\n") {
		// The audit file has the audit records.
		if line != "" && !strings.Contains(line, `"audit":true`) {
			st.Lines = append(st.Lines, strings.TrimPrefix(line, "worker: "))
		}
	}
	return st
}

var errBusy = errors.New("something else runs for this operation already: see below")

// run starts a command for an operation, unless another runs for it. One that only asks
// for receipts gives way.
func (s *Server) run(name string, what kind, args []string) error {
	s.mu.Lock()
	before := s.runs[name]
	s.mu.Unlock()
	if before != nil {
		if before.kind == asking && what != asking {
			before.cancel()
			<-before.done
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := s.runs[name]; now != nil {
		select {
		case <-now.done:
		default:
			return errBusy
		}
	}
	ctx, cancel := context.WithCancel(s.ctx)
	r := &run{kind: what, args: args, began: time.Now(), cancel: cancel, done: make(chan struct{})}
	s.runs[name] = r
	s.work.Go(func() {
		defer cancel()
		defer close(r.done)
		var stdout bytes.Buffer
		status := s.queue.Run(ctx, args, &stdout, said{r})
		r.mu.Lock()
		defer r.mu.Unlock()
		r.status, r.stdout, r.ended, r.stopped = status, stdout, time.Now(), ctx.Err() != nil
	})
	return nil
}

// newName returns the name of an operation, which sorts by time.
func newName() string {
	return time.Now().UTC().Format("20060102T150405Z") + "-" + strings.ToLower(rand.Text()[:6])
}

// operationName is the form of the names, which are parts of paths.
var operationName = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[a-z2-7]{6}$`)

func (s *Server) planPath(name string) string { return filepath.Join(s.opts.Plans, name+".json") }

// fixesOf is the path of the file from which a plan is made.
func fixesOf(plan string) string { return strings.TrimSuffix(plan, ".json") + ".fixes.yaml" }

// writeFile writes a new file that only the user may read.
func writeFile(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
