package dlqui

import (
	"context"
	"sync"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
)

// source is the part of the queue that a reading needs; see Queue.
type source interface {
	Read(ctx context.Context, into *spool.Writer, progress func(read int)) (Reading, error)
	Owner(service string) (owner, runbook string)
}

// phase is the progress of the latest reading of the queue.
type phase int

const (
	succeeded phase = iota // also before the first reading
	goingOn
	failed
)

// reader reads the queue in the background, one reading at a time, and keeps the spool of
// the last reading that succeeded.
type reader struct {
	queue       source
	folder      string // of the spool; empty: that of temporary files
	environment string
	background  *background
	replaced    func() // called after each reading that succeeded

	mu      sync.Mutex // guards what follows
	phase   phase
	count   int          // messages that the latest reading has read so far
	failure error        // of the latest reading; nil unless it failed
	spool   *spool.Spool // of the last reading that succeeded; nil: none
	last    lastReading
}

// lastReading describes the last reading that succeeded. The zero value says that there is
// none.
type lastReading struct {
	ended    time.Time
	messages int
	found    Reading
}

// readerStatus is the state of a reader at one time.
type readerStatus struct {
	phase   phase
	count   int
	failure error
	last    lastReading
}

// start reads the queue in the background, unless a reading goes on.
func (r *reader) start() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.phase == goingOn || !r.background.start(r.run) {
		return
	}
	r.phase, r.count, r.failure = goingOn, 0, nil
}

// run reads the queue, and puts the new spool in the place of the old one. After a failure
// the old spool stays.
func (r *reader) run(ctx context.Context) {
	made, found, err := r.read(ctx)
	r.mu.Lock()
	if err != nil {
		r.phase, r.failure = failed, err
		r.mu.Unlock()
		return
	}
	if r.spool != nil {
		r.spool.Release()
	}
	r.phase, r.spool = succeeded, made
	r.last = lastReading{ended: time.Now(), messages: made.Len(), found: found}
	r.mu.Unlock()
	r.replaced()
}

// read reads the queue into a new spool.
func (r *reader) read(ctx context.Context) (*spool.Spool, Reading, error) {
	w, err := spool.Create(r.folder, r.environment)
	if err != nil {
		return nil, Reading{}, err
	}
	found, err := r.queue.Read(ctx, w, r.progress)
	if err != nil {
		w.Abort()
		return nil, Reading{}, err
	}
	made := w.Finish()
	for _, f := range made.Faults() {
		f.Owner, f.Runbook = r.queue.Owner(f.Service)
	}
	return made, found, nil
}

func (r *reader) progress(read int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count = read
}

// current returns the spool, or nil if the queue was not read yet. The caller must release
// the spool, whose file is removed after that and a newer reading.
func (r *reader) current() *spool.Spool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spool == nil || !r.spool.Hold() {
		return nil
	}
	return r.spool
}

func (r *reader) status() readerStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return readerStatus{phase: r.phase, count: r.count, failure: r.failure, last: r.last}
}

// close removes the spool once no request holds it. The background work must have ended.
func (r *reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.spool != nil {
		r.spool.Release()
		r.spool = nil
	}
}
