package dlqcmd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/account"
	"github.com/sourcegraph/telemetry-relay/internal/logging"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// audit returns the log of changes and of reads of private data, with the account of
// the person. Its records are JSON, and no log level hides them. They go to the audit
// file, and to stderr where that is no terminal, so that the log of a machine has them.
// A person at a terminal sees one row that names the file.
func (d *session) audit(ctx context.Context, action string, more ...any) *slog.Logger {
	who := d.who(ctx)
	return logging.New(d.auditWriter(action, who), "info", "json").With(
		"audit", true, "action", "dlq "+action, "who", who, "filter", d.filter.String(),
		"subscription", d.cfg.DeadLetterSubscriptionName()).With(more...)
}

func (d *session) auditWriter(action, who string) io.Writer {
	path := d.auditFile
	if path == "" {
		path = defaultAuditFile(d.env.Env)
	}
	if path == "" {
		return d.env.Stderr
	}
	f, err := openAudit(path)
	if err != nil {
		d.say("worker: warning: the audit file cannot be written: %v", err)
		return d.env.Stderr // at least there
	}
	d.closers = append(d.closers, f.Close)
	d.say("worker: audit: dlq %s by %s, recorded in %s", action, who, path)
	if terminal.Is(d.env.Stderr) {
		return f
	}
	return io.MultiWriter(f, d.env.Stderr)
}

// defaultAuditFile is in the user's state folder (the XDG base directory
// specification); empty if the user has no home.
func defaultAuditFile(env command.Env) string {
	state := env.Lookup("XDG_STATE_HOME")
	if !filepath.IsAbs(state) { // the specification says to ignore it then
		home := env.Lookup("HOME")
		if !filepath.IsAbs(home) {
			return ""
		}
		state = filepath.Join(home, ".local", "state")
	}
	return filepath.Join(state, "telemetry-relay", "audit.ndjson")
}

// openAudit opens a file to append to, which only the user may read.
func openAudit(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

func auditFlag() cli.Flag {
	return &cli.StringFlag{Name: "audit-file", Usage: "append the audit records to `FILE` (default: telemetry-relay/audit.ndjson in the user's state folder)"}
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
