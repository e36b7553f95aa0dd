package dlqui

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"
)

// commands runs the commands of `worker dlq`; see Queue.
type commands interface {
	Run(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

// runs runs commands in the background, at most one for an operation at a time, and keeps
// the latest of each operation.
type runs struct {
	commands   commands
	background *background

	mu     sync.Mutex // guards latest
	latest map[string]*run
}

func newRuns(of commands, background *background) *runs {
	return &runs{commands: of, background: background, latest: map[string]*run{}}
}

var (
	errBusy    = errors.New("something else runs for this operation already: see below")
	errClosing = errors.New("the command ends, so nothing more is started")
)

// of returns the latest run of an operation, or nil.
func (r *runs) of(operation string) *run {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.latest[operation]
}

// start starts a command for an operation. A command that only asks for receipts gives way
// to one that does not; otherwise start returns errBusy while another runs.
func (r *runs) start(ctx context.Context, operation string, what kind, args []string) error {
	for {
		before, err := r.try(operation, what, args)
		if !errors.Is(err, errBusy) || before.kind != asking || what == asking {
			return err
		}
		before.cancel()
		select {
		case <-before.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// try starts a command unless one runs for the operation, which it returns with errBusy.
func (r *runs) try(operation string, what kind, args []string) (*run, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.latest[operation]; now.active() {
		return now, errBusy
	}
	ctx, cancel := context.WithCancel(r.background.ctx)
	made := &run{kind: what, args: args, began: time.Now(), cancel: cancel, done: make(chan struct{})}
	if !r.background.start(func(context.Context) {
		defer cancel()
		made.run(ctx, r.commands)
	}) {
		cancel()
		return nil, errClosing
	}
	r.latest[operation] = made
	return nil, nil
}

// stop stops the command that runs for an operation, if any, as Ctrl-C does.
func (r *runs) stop(operation string) {
	if now := r.of(operation); now != nil {
		now.cancel()
	}
}
