package dlqcmd

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/dlqui"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// uiQueue is the queue of the pages. Each of its commands has a session of its own.
type uiQueue struct {
	root      commands
	cfg       *config.Config
	check     func(event.Message) *event.Rejection
	auditFile string
}

// Read reads the queue once.
func (q *uiQueue) Read(ctx context.Context, into *spool.Writer, progress func(int)) (dlqui.Reading, error) {
	said := &saidLines{}
	d, err := q.session(ctx, said)
	if err != nil {
		return dlqui.Reading{}, err
	}
	defer d.close()
	d.queue.looks = true
	var result dlqui.Reading
	err = d.queue.walk(ctx, d.filter, false, func(w *dlq.Walk) error {
		var wrong error
		w.OnMessage = func(m *pubsubpb.PubsubMessage) { wrong = errors.Join(wrong, into.Add(m)) }
		err := w.Each(ctx, func(*dlq.Stored) error { return wrong }, func() error {
			progress(w.Read)
			return wrong
		})
		result.Running = w.Newest
		return err
	})
	if err == nil {
		d.queue.compareWith(ctx, d.backlog)
	}
	result.Complete, result.Said = d.queue.complete, said.lines()
	return result, err
}

// session connects with the settings of the process. It prints its messages to said.
func (q *uiQueue) session(ctx context.Context, said io.Writer) (*session, error) {
	root := q.root
	root.env.Stdout, root.env.Stderr = io.Discard, said
	d, err := root.openWith(ctx, &dlq.Filter{})
	if err != nil {
		return nil, err
	}
	d.audit.file = q.auditFile
	return d, nil
}

// Run runs a command as main does. The stderr of the process gets its messages, too.
func (q *uiQueue) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if q.auditFile != "" && (args[0] == "apply" || args[0] == "restore") {
		args = append(slices.Clip(args), "--audit-file", q.auditFile)
	}
	env := q.root.env
	env.Args = append([]string{"worker", "dlq"}, args...)
	env.Stdin, env.Stdout, env.Stderr = strings.NewReader(""), stdout, stderr
	if args[0] != "status" { // a page asks for it again and again
		env.Stderr = io.MultiWriter(stderr, q.root.env.Stderr)
	}
	return command.Main(ctx, env, func(env command.Env) *cli.Command {
		return &cli.Command{Name: "worker", Commands: []*cli.Command{New(env, q.root.opts)}, Writer: env.Stdout, ErrWriter: env.Stderr}
	})
}

// Reveal records that a person sees the private data of a message.
func (q *uiQueue) Reveal(ctx context.Context, s *dlq.Stored) error {
	d, err := q.session(ctx, q.root.env.Stderr) // stderr gets the record if the audit file cannot be written
	if err != nil {
		return err
	}
	defer d.close()
	d.audit.touched.add(s.ID)
	return d.audit.reading(ctx, "ui reveal", d.filter, func() error { return nil }, "id", dlq.SampleID(s))
}

// Owner returns the owner and the runbook of a service.
func (q *uiQueue) Owner(service string) (owner, runbook string) {
	return ownerOf(q.cfg.Services, service)
}

// Check is the worker's own check.
func (q *uiQueue) Check(m event.Message) *event.Rejection {
	return q.check(m)
}

// saidLines collects the messages of a command for a person.
type saidLines struct{ text strings.Builder }

func (s *saidLines) Write(p []byte) (int, error) { return s.text.Write(p) }

// lines returns the sentences, without the logs of the libraries.
func (s *saidLines) lines() []string {
	var all []string
	for line := range strings.SplitSeq(s.text.String(), "\n") {
		if said, ok := strings.CutPrefix(line, "worker: "); ok {
			all = append(all, said)
		}
	}
	return all
}
