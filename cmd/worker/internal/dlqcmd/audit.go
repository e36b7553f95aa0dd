package dlqcmd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/sourcegraph/telemetry-relay/internal/account"
	"github.com/sourcegraph/telemetry-relay/internal/logging"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// audit returns the log of changes and of reads of private data, with the account of
// the person. It is always JSON, and no log level hides it.
func (d *session) audit(ctx context.Context, action string, more ...any) *slog.Logger {
	return logging.New(d.env.Stderr, "info", "json").With(
		"audit", true, "action", "dlq "+action, "who", d.who(ctx), "filter", d.filter.String(),
		"subscription", d.cfg.DeadLetterSubscriptionName()).With(more...)
}

// who returns the account of the credentials. An emulator has none.
func (d *session) who(ctx context.Context) string {
	if d.cfg.EmulatorHost != "" {
		return account.Unknown
	}
	return account.Name(ctx)
}

// touched are the message ids in the queue that a command has shown, written or
// changed.
type touched []string

func (t *touched) add(ids ...string) { *t = append(*t, ids...) }

// maxIDsLogged bounds the ids in an audit record. It has the digest of more.
const maxIDsLogged = 20

// attributes are the ids for an audit record: the SHA-256 of the sorted ids, joined by
// line breaks, and the ids themselves if they are few.
func (t touched) attributes() []any {
	ids := slices.Sorted(slices.Values(t))
	sum := sha256.Sum256([]byte(strings.Join(ids, "\n")))
	attributes := []any{"ids_count", len(ids), "ids_sha256", hex.EncodeToString(sum[:])}
	if len(ids) <= maxIDsLogged {
		attributes = append(attributes, "ids", ids)
	}
	return attributes
}

// reading audits a command that shows or writes private data and changes nothing.
func (d *session) reading(ctx context.Context, action string, read func() error, more ...any) error {
	audit := d.audit(ctx, action, more...)
	audit.Info("Reading private data of the dead-letter queue")
	err := read()
	audit = audit.With(d.touched.attributes()...)
	if err != nil {
		audit.Error("The reading of private data has ended early", "error", err)
		return err
	}
	audit.Info("Read private data of the dead-letter queue")
	return nil
}

// makePrivate takes the permissions of others off a file to which a shell redirects
// private data.
func (d *session) makePrivate(out io.Writer) {
	w, ok := out.(*terminal.Writer)
	if !ok {
		return
	}
	switch changed, err := w.Private(); {
	case err != nil:
		d.say("worker: warning: the output is a file that others can read: %v", err)
	case changed:
		d.say("worker: the output is a file that others could read; from now on only you can")
	}
}
