package dlqui

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
)

// operations reads operations from the files of a folder, and runs their commands.
type operations struct {
	folder    planFolder
	runs      *runs
	summaries summaries
	// receipts says that receipts are read, and receiptsEvery how often.
	receipts      bool
	receiptsEvery time.Duration
}

var errNoOperation = errors.New("there is no such operation")

// read reads an operation. Without a plan there is one only if this process runs a command
// for it. A plan that cannot be read is an error of the operation, which the pages show.
func (o *operations) read(name string) (*operation, error) {
	if !operationName.MatchString(name) {
		return nil, errNoOperation
	}
	op := &operation{Name: name, Path: o.folder.path(name), Receipts: o.receipts, Run: o.runs.of(name).snapshot()}
	if _, err := os.Stat(op.Path); errors.Is(err, os.ErrNotExist) {
		if op.Run == nil {
			return nil, errNoOperation
		}
		return op, nil
	}
	summary, err := o.summaries.of(op.Path)
	if err != nil {
		if !op.Active() { // a command that runs may write the plan just now
			op.Error = err.Error()
		}
		return op, nil
	}
	op.Plan = summary
	return op, nil
}

// list returns the newest operations, at most so many.
func (o *operations) list(most int) ([]*operation, error) {
	names, err := o.folder.names(most)
	if err != nil {
		return nil, err
	}
	var all []*operation
	for _, name := range names {
		if op, err := o.read(name); err == nil {
			all = append(all, op)
		}
	}
	return all, nil
}

// plan makes an operation, and starts `dlq plan` for it with the text of a file of fixes.
// It returns the operation's name.
func (o *operations) plan(ctx context.Context, fixes []byte, flags ...string) (string, error) {
	name := newName()
	path := o.folder.path(name)
	if err := writeFile(fixesOf(path), fixes); err != nil {
		return "", err
	}
	args := append([]string{"plan", "--fix", fixesOf(path), "-o", path, "--output", "json"}, flags...)
	return name, o.runs.start(ctx, name, planning, args)
}

// apply starts `dlq apply`, which applies a plan or what is left of it.
func (o *operations) apply(ctx context.Context, op *operation, flags []string) error {
	args := append([]string{"apply", op.Path, "--yes", "--output", "json"}, flags...)
	return o.runs.start(ctx, op.Name, applying, args)
}

// restore starts `dlq restore`, which puts the removed messages back into the queue.
func (o *operations) restore(ctx context.Context, op *operation) error {
	return o.runs.start(ctx, op.Name, restoring, []string{"restore", plan.BackupOf(op.Path), "--yes", "--output", "json"})
}

// stop stops the command that runs for an operation.
func (o *operations) stop(op *operation) { o.runs.stop(op.Name) }

// askForReceipts starts `dlq status`, which moves receipts into the journal, if the
// operation waits for receipts and the last question is long enough ago. The pages of an
// operation call it as long as they are shown.
func (o *operations) askForReceipts(ctx context.Context, op *operation) {
	if op.Waits() && o.runs.of(op.Name).allowsAsking(time.Now(), o.receiptsEvery) {
		_ = o.runs.start(ctx, op.Name, asking, []string{"status", op.Path, "--output", "json"}) // another page may have asked
	}
}
