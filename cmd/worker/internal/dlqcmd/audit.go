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

// audit returns the log of who changes what, and of who reads private data. It is
// JSON everywhere, and no level hides it.
func (d *desk) audit(ctx context.Context, action string, more ...any) *slog.Logger {
	return logging.New(d.env.Stderr, "info", "json").With(
		"audit", true, "action", "dlq "+action, "who", d.who(ctx), "filter", d.filter.String(),
		"subscription", d.cfg.DeadLetterSubscriptionName()).With(more...)
}

// who is the account that Pub/Sub knows the command by. An emulator knows none.
func (d *desk) who(ctx context.Context) string {
	if d.cfg.EmulatorHost != "" {
		return account.Unknown
	}
	return account.Name(ctx)
}

// touched are the dead letters, by their message ids, that a command has shown,
// written or changed.
type touched []string

func (t *touched) add(ids ...string) { *t = append(*t, ids...) }

// maxIDsLogged is how many ids a line has in full; of more it has the digest.
const maxIDsLogged = 20

// attributes are the ids for the audit: a digest of them, sorted and one a line,
// and the ids themselves if they are few.
func (t touched) attributes() []any {
	ids := slices.Sorted(slices.Values(t))
	sum := sha256.Sum256([]byte(strings.Join(ids, "\n")))
	attributes := []any{"ids_count", len(ids), "ids_sha256", hex.EncodeToString(sum[:])}
	if len(ids) <= maxIDsLogged {
		attributes = append(attributes, "ids", ids)
	}
	return attributes
}

// reading audits a command that shows or writes private data, and changes nothing.
func (d *desk) reading(ctx context.Context, action string, read func() error, more ...any) error {
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

// makePrivate leaves a file that private data is written to, such as by a shell's
// redirection, to its owner alone.
func (d *desk) makePrivate(out io.Writer) {
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
