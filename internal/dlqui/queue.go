// Package dlqui shows the dead-letter queue as pages for a browser on the same machine:
// its faults, the effect of a fix on each event, the plan of a replay, and its progress.
// The pages act on the queue by running the commands of `worker dlq`, so that a page and a
// command cannot do different things.
//
// Each piece of state has one owner: the reader has the messages that were read, the draft
// the steps that a person chooses, the checks the fixes that are tried on all events, and
// the operations the plans and the commands that run. Each group of pages is a type with
// the owners that its pages need.
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
	// calls progress with the number of messages read so far. It ends with its context.
	Read(ctx context.Context, into *spool.Writer, progress func(read int)) (Reading, error)
	// Run runs a command of `worker dlq`, given without these words, and returns its exit
	// status. The end of the context stops the command as Ctrl-C does.
	Run(ctx context.Context, args []string, stdout, stderr io.Writer) int
	// Reveal records in the audit file that a person sees the private data of a message. An
	// error means that it is not recorded.
	Reveal(ctx context.Context, s *dlq.Stored) error
	// Owner returns the owner and the runbook of a service, if services.yaml has any.
	Owner(service string) (owner, runbook string)
	// Check is the worker's own check of an event; nil: the worker would submit it. Check
	// must be safe for concurrent use.
	Check(m event.Message) *event.Rejection
}

// About describes the queue and the settings of the process.
type About struct {
	Queue       plan.Queue
	Environment string
	// ServicesDigest identifies the services list of this process, and ServicesSource says
	// where it is from.
	ServicesDigest, ServicesSource string
	// Receipts says that this process can read the receipts in which the worker publishes
	// the outcome of each replayed event.
	Receipts bool
}

// Reading describes one read of the queue, without its messages.
type Reading struct {
	// Complete says that the reading has found every message of the queue, as far as can be
	// known. Otherwise the queue may have more of them.
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
	// Refresh is the time between two looks of an open page for changes; 0: 300 ms.
	Refresh time.Duration
	// ReceiptsEvery is the least time between two questions for the receipts of an
	// operation while a page shows it; 0: 3 s.
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
