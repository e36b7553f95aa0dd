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

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/account"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/logging"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// auditLog writes the audit records of a command.
type auditLog struct {
	env     command.Env
	console *console
	// subscription is the name of the dead-letter queue.
	subscription string
	emulated     bool // an emulator has no accounts
	// file is where the records go; empty is the default.
	file string
	// touched are the messages that were shown, written or changed.
	touched touched
	closers []func() error
}

// begin returns the log of changes and of reads of private data, with the account of
// the person. Its records are JSON, and no log level hides them. They go to the audit
// file, and to stderr where that is no terminal, so that the log of a machine has them.
// A person at a terminal sees one row that names the file.
func (a *auditLog) begin(ctx context.Context, action string, filter *dlq.Filter, more ...any) *slog.Logger {
	who := a.who(ctx)
	return logging.New(a.writer(action, who), "info", "json").With(
		"audit", true, "action", "dlq "+action, "who", who, "filter", filter.String(),
		"subscription", a.subscription).With(more...)
}

// reading audits a command that shows or writes private data and changes nothing.
func (a *auditLog) reading(ctx context.Context, action string, filter *dlq.Filter, read func() error, more ...any) error {
	audit := a.begin(ctx, action, filter, more...)
	audit.Info("Reading private data of the dead-letter queue")
	err := read()
	audit = audit.With(a.touched.attributes()...)
	if err != nil {
		audit.Error("The reading of private data has ended early", "error", err)
		return err
	}
	audit.Info("Read private data of the dead-letter queue")
	return nil
}

// who returns the account of the credentials.
func (a *auditLog) who(ctx context.Context) string {
	if a.emulated {
		return account.Unknown
	}
	return account.Name(ctx)
}

// path returns the audit file; empty if the user has no home for the default.
func (a *auditLog) path() string {
	if a.file != "" {
		return a.file
	}
	return defaultAuditFile(a.env)
}

func (a *auditLog) writer(action, who string) io.Writer {
	path := a.path()
	if path == "" {
		return a.env.Stderr
	}
	f, err := openAudit(path)
	if err != nil {
		a.console.say("worker: warning: the audit file cannot be written: %v", err)
		return a.env.Stderr
	}
	a.closers = append(a.closers, f.Close)
	a.console.say("worker: audit: dlq %s by %s, recorded in %s", action, who, path)
	if terminal.Is(a.env.Stderr) {
		return f
	}
	return io.MultiWriter(f, a.env.Stderr)
}

// close closes the files of the records.
func (a *auditLog) close() {
	for _, closer := range a.closers {
		if err := closer(); err != nil {
			a.console.say("worker: warning: the audit file: %v", err)
		}
	}
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
