package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/dlqui"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

func (env commands) uicommand() *cli.Command {
	return &cli.Command{
		Name:  "ui",
		Usage: "the queue as pages for a browser on this machine",
		Description: "Serves pages on 127.0.0.1 with the faults, what a fix does to every event, the plan of a\n" +
			"replay, and its progress. The pages run the commands plan, apply, status and restore, and\n" +
			"show them. The address that is printed admits one browser, once. Private data is hidden\n" +
			"until it is revealed for one event, which the audit file records.\n\n" +
			"The queue is read once, and again when a person asks for it. The reading is kept in a\n" +
			"temporary file that only you can read; it is removed at the end. Plans and their journals\n" +
			"stay in the folder --plans, so that they can be continued. Ctrl-C ends the command, and\n" +
			"stops a plan that is being applied.\n\n" +
			"Example:\n\n" +
			"   worker dlq ui",
		Flags: []cli.Flag{
			countFlag("port", 0, "serve at this `PORT` of 127.0.0.1; 0 means any free one"),
			&cli.StringFlag{Name: "plans", Usage: "the `FOLDER` of the plans and their journals (default: telemetry-relay/plans in the user's state folder)"},
			&cli.BoolFlag{Name: "open", Value: true, Usage: "at a terminal, also open the address in the browser"},
			auditFlag(),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if err := command.NoArguments(c); err != nil {
				return err
			}
			folder, err := plansFolder(env.Env, c.String("plans"))
			if err != nil {
				return err
			}
			d, err := env.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			listener, err := listen(ctx, c.Int("port"))
			if err != nil {
				return err
			}
			ui, err := env.pages(d.cfg, listener, folder, c.String("audit-file"))
			if err != nil {
				return errors.Join(err, listener.Close())
			}
			fmt.Fprintf(env.Stdout, "The dead-letter queue is at\n\n   %s\n\nThe address works once, in one browser on this machine. Ctrl-C ends it.\n", ui.Address())
			if c.Bool("open") && env.StdinIsTerminal() {
				var opening sync.WaitGroup
				defer opening.Wait()
				serving, stop := context.WithCancel(ctx)
				defer stop()
				address := ui.Address()
				opening.Go(func() {
					if err := env.openBrowser(serving, address); err != nil {
						d.log.Debug("The browser could not be opened", "error", err) // the address is printed
					}
				})
			}
			return ui.Serve(ctx)
		},
	}
}

// plansFolder returns the folder of the plans. The default is in the user's state folder.
func plansFolder(env command.Env, flag string) (string, error) {
	if flag != "" {
		return filepath.Abs(flag)
	}
	audit := defaultAuditFile(env)
	if audit == "" {
		return "", command.Usagef("--plans: expected a folder, as you have no home folder")
	}
	return filepath.Join(filepath.Dir(audit), "plans"), nil
}

// listen listens on a port that only this machine can reach.
func listen(ctx context.Context, port int) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// Pages are the pages of a queue, on a port that only this machine can reach.
type Pages struct {
	*dlqui.Server
	listener net.Listener
}

// NewPages makes the pages for another command, which serves them with Serve. The
// environment is that of `worker dlq`; plans is the folder of the plans and of the audit
// file.
func NewPages(ctx context.Context, e command.Env, opts Options, plans string) (*Pages, error) {
	env := commands{e, opts.withDefaults()}
	cfg, _, err := env.Load(config.ForPubSub)
	if err != nil {
		return nil, err
	}
	listener, err := listen(ctx, 0)
	if err != nil {
		return nil, err
	}
	pages, err := env.pages(cfg, listener, plans, filepath.Join(plans, "audit.ndjson"))
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return pages, nil
}

// pages makes the pages.
func (env commands) pages(cfg *config.Config, listener net.Listener, plans, auditFile string) (*Pages, error) {
	q := &uiQueue{commands: env, cfg: cfg, decoder: event.NewDecoder(cfg.Services, cfg.Environment), auditFile: auditFile}
	d := &session{cfg: cfg}
	server, err := dlqui.New(q, dlqui.Options{
		About: dlqui.About{
			Queue: d.planQueue(), Environment: cfg.Environment, ServicesDigest: cfg.Services.Digest(), ServicesSource: d.servicesSource(),
			Receipts: cfg.ReceiptsSubscriptionName() != "",
		},
		Host: listener.Addr().String(), Plans: plans,
	})
	if err != nil {
		return nil, err
	}
	return &Pages{server, listener}, nil
}

// shutdownTimeout is how long answers may take after the end. Live parts of pages end at
// once.
const shutdownTimeout = time.Second

// Serve serves the pages until the context ends. It waits until a plan that is being
// applied has stopped.
func (p *Pages) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler: p.Server, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(p.listener) }()
	var err error
	select {
	case err = <-served:
		p.Close()
	case <-ctx.Done():
		p.Close()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(stop) != nil {
			_ = server.Close() // a browser keeps a connection open
		}
		err = <-served
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// uiQueue is the queue of the pages. Each of its commands has a session of its own.
type uiQueue struct {
	commands
	cfg       *config.Config
	decoder   *event.Decoder
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
	d.looks = true
	var result dlqui.Reading
	err = d.walk(ctx, d.filter, false, func(w *dlq.Walk) error {
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
		d.compareWithBacklog(ctx)
	}
	result.Complete, result.Said = d.complete, said.lines()
	return result, err
}

// session connects with the settings of the process, and says what there is to say to
// said.
func (q *uiQueue) session(ctx context.Context, said io.Writer) (*session, error) {
	env := q.commands
	env.Stdout, env.Stderr = io.Discard, said
	d, err := env.openWith(ctx, &dlq.Filter{})
	if err != nil {
		return nil, err
	}
	d.auditFile = q.auditFile
	return d, nil
}

// Run runs a command as main does. What it says also goes to the stderr of the process.
func (q *uiQueue) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if q.auditFile != "" && (args[0] == "apply" || args[0] == "restore") {
		args = append(slices.Clip(args), "--audit-file", q.auditFile)
	}
	env := q.Env
	env.Args = append([]string{"worker", "dlq"}, args...)
	env.Stdin, env.Stdout, env.Stderr = strings.NewReader(""), stdout, stderr
	if args[0] != "status" { // a page asks for it again and again
		env.Stderr = io.MultiWriter(stderr, q.Stderr)
	}
	return command.Main(ctx, env, func(env command.Env) *cli.Command {
		return &cli.Command{Name: "worker", Commands: []*cli.Command{New(env, q.opts)}, Writer: env.Stdout, ErrWriter: env.Stderr}
	})
}

// Reveal records that a person sees the private data of a message.
func (q *uiQueue) Reveal(ctx context.Context, s *dlq.Stored) error {
	d, err := q.session(ctx, q.Stderr) // it has the record if the audit file cannot be written
	if err != nil {
		return err
	}
	defer d.close()
	d.touched.add(s.ID)
	return d.reading(ctx, "ui reveal", func() error { return nil }, "id", dlq.SampleID(s))
}

// Owner returns the owner and the runbook of a service.
func (q *uiQueue) Owner(service string) (owner, runbook string) {
	d := &session{cfg: q.cfg}
	return d.owner(service)
}

// Check is the worker's own check.
func (q *uiQueue) Check(m event.Message) *event.Rejection {
	_, rejection := q.decoder.Decode(m)
	return rejection
}

// saidLines collects what a command says to a person.
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
