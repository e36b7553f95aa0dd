// Package dlqui shows the dead-letter queue as pages for a browser on the same machine:
// its faults, what a fix does to each event, the plan of a replay, and how far it is. The
// pages act on the queue by running the commands of `worker dlq`, so that a page and a
// command cannot do different things.
package dlqui

import (
	"context"
	"io"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// Queue is the dead-letter queue and the commands that act on it.
type Queue interface {
	// Read reads the queue once into the spool, and leaves every message in the queue. It
	// calls progress with the number of messages read so far.
	Read(ctx context.Context, into *spool.Writer, progress func(read int)) (Reading, error)
	// Run runs a command of `worker dlq`, given without these words, and returns its exit
	// status.
	Run(ctx context.Context, args []string, stdout, stderr io.Writer) int
	// Reveal records in the audit file that a person sees the private data of a message. An
	// error means that it is not recorded.
	Reveal(ctx context.Context, s *dlq.Stored) error
	// Owner returns the owner and the runbook of a service, if services.yaml has any.
	Owner(service string) (owner, runbook string)
	// Check is the worker's own check of an event. It is safe for concurrent use.
	Check(m event.Message) *event.Rejection
}

// About describes the queue and the settings of the process.
type About struct {
	Queue       plan.Queue
	Environment string
	// ServicesDigest identifies the services list of this process, and ServicesSource says
	// where it is from.
	ServicesDigest, ServicesSource string
	// Receipts says that the worker publishes what became of replayed events, and that this
	// process can read it.
	Receipts bool
}

// Reading is what one read of the queue has found besides its messages.
type Reading struct {
	// Complete says that the whole queue was seen, as far as can be known.
	Complete bool
	// Said are the warnings for a person.
	Said []string
	// Running is the worker that rejected the newest message.
	Running dlq.Worker
}

// Options configure a Server.
type Options struct {
	About About
	// Host is the address at which the pages are served, such as 127.0.0.1:8080. Requests
	// for any other are refused.
	Host string
	// Plans is the folder of the plans and their journals. It is created if it is missing.
	Plans string
	// Spool is the folder of the spool; empty: that of temporary files.
	Spool string
	// Refresh is how often a page that is live looks for something new; 300 ms.
	Refresh time.Duration
	// ReceiptsEvery is how often receipts are asked for while a page shows an operation
	// that waits for them; 3 s.
	ReceiptsEvery time.Duration
}

func (o Options) withDefaults() Options {
	if o.Refresh == 0 {
		o.Refresh = 300 * time.Millisecond
	}
	if o.ReceiptsEvery == 0 {
		o.ReceiptsEvery = 3 * time.Second
	}
	return o
}
