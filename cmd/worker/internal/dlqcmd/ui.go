package dlqcmd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/dlqui"
)

func (root commands) uiCommand() *cli.Command {
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
			folder, err := plansFolder(root.env, c.String("plans"))
			if err != nil {
				return err
			}
			d, err := root.open(ctx, c)
			if err != nil {
				return err
			}
			defer d.close()
			listener, err := listen(ctx, c.Int("port"))
			if err != nil {
				return err
			}
			ui, err := root.pages(d.cfg, listener, folder, c.String("audit-file"))
			if err != nil {
				return errors.Join(err, listener.Close())
			}
			fmt.Fprintf(d.env.Stdout, "The dead-letter queue is at\n\n   %s\n\nThe address works once, in one browser on this machine. Ctrl-C ends it.\n", ui.Address())
			if c.Bool("open") && d.env.StdinIsTerminal() {
				return root.serveOpened(ctx, ui, d.log)
			}
			return ui.Serve(ctx)
		},
	}
}

// serveOpened serves the pages, and opens them in the browser.
func (root commands) serveOpened(ctx context.Context, ui *Pages, log *slog.Logger) error {
	var opening sync.WaitGroup
	defer opening.Wait()
	serving, stop := context.WithCancel(ctx)
	defer stop()
	address := ui.Address()
	opening.Go(func() {
		if err := root.openBrowser(serving, address); err != nil {
			log.Debug("The browser could not be opened", "error", err) // the address is printed
		}
	})
	return ui.Serve(ctx)
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
	server   *dlqui.Server
	listener net.Listener
}

// NewPages makes the pages for another command, which serves them with Serve. The
// environment is that of `worker dlq`; plans is the folder of the plans and of the audit
// file.
func NewPages(ctx context.Context, e command.Env, opts Options, plans string) (*Pages, error) {
	root := commands{e, opts.withDefaults()}
	cfg, _, err := root.env.Load(config.ForPubSub)
	if err != nil {
		return nil, err
	}
	listener, err := listen(ctx, 0)
	if err != nil {
		return nil, err
	}
	pages, err := root.pages(cfg, listener, plans, filepath.Join(plans, "audit.ndjson"))
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return pages, nil
}

// pages makes the pages.
func (root commands) pages(cfg *config.Config, listener net.Listener, plans, auditFile string) (*Pages, error) {
	q := &uiQueue{root: root, cfg: cfg, check: checkOf(cfg), auditFile: auditFile}
	server, err := dlqui.New(q, dlqui.Options{
		About: dlqui.About{
			Queue: planQueue(cfg), Environment: cfg.Environment, ServicesDigest: cfg.Services.Digest(), ServicesSource: servicesSource(cfg),
			Receipts: cfg.ReceiptsSubscriptionName() != "",
		},
		Host: listener.Addr().String(), Plans: plans,
	})
	if err != nil {
		return nil, err
	}
	return &Pages{server, listener}, nil
}

// Address is where the pages are. It admits one browser, once.
func (p *Pages) Address() string { return p.server.Address() }

// Link puts a link to another page on this machine into the navigation.
func (p *Pages) Link(text, address string) { p.server.Link(text, address) }

// shutdownTimeout is how long answers may take after the end. Live parts of pages end at
// once.
const shutdownTimeout = time.Second

// Serve serves the pages until the context ends. It waits until a plan that is being
// applied has stopped.
func (p *Pages) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler: p.server, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(p.listener) }()
	var err error
	select {
	case err = <-served:
		p.server.Close()
	case <-ctx.Done():
		p.server.Close()
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
