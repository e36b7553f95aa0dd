package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/app"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/line"
	"github.com/sourcegraph/telemetry-relay/internal/patience"
	"github.com/sourcegraph/telemetry-relay/internal/topic"
)

func (env environment) publishCommand() *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "publish events from a file or stdin, or only check them",
		ArgsUsage: "[FILE]",
		Description: "Publishes events to PUBSUB_TOPIC, one a line:\n\n" +
			"   {\"attributes\":{\"service_id\":\"sams\"},\"data\":{\"feature\":\"sams.user\",\"action\":\"created\"}}\n\n" +
			"Each is first checked exactly as the worker will; those that it would reject are\n" +
			"reported with their line and not published, and the exit status is 1.\n" +
			"Without FILE, or with -, events are read from stdin.\n\n" +
			"With --check nothing is published and no Pub/Sub is needed, only services.yaml\n" +
			"(WORKER_SERVICES_FILE or WORKER_SERVICES, if not the one it was built with) and\n" +
			"ENVIRONMENT_ID for events without service_environment.\n\n" +
			"Examples:\n\n" +
			"   worker publish events.ndjson\n" +
			"   worker publish --check events.ndjson\n" +
			"   worker dlq export | worker publish --as-is -",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "as-is", Usage: "publish without checking"},
			&cli.BoolFlag{Name: "check", Usage: "check without publishing"},
			outputFlag(),
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			if c.NArg() > 1 {
				return usagef("publish takes one FILE, got %d", c.NArg())
			}
			check, asIs := c.Bool("check"), c.Bool("as-is")
			if check && asIs {
				return usagef("--check and --as-is exclude each other")
			}
			purpose := config.ForPubSub
			if check {
				purpose = config.ForCheck
			}
			cfg, _, err := env.load(purpose)
			if err != nil {
				return err
			}
			input, name := env.stdin, "stdin"
			if path := c.Args().First(); path != "" && path != "-" {
				f, err := os.Open(path)
				if err != nil {
					return usageError{err}
				}
				defer f.Close() //nolint:errcheck // It was only read.
				input, name = f, path
			} else if env.stdinIsTerminal() {
				fmt.Fprintln(env.stderr, "Reading events from the terminal, one a line; end with Ctrl-D.")
			}
			p := publisher{topicName: cfg.TopicName(), bounds: publishBounds(), stderr: env.stderr, source: name}
			if !asIs {
				p.decoder = event.NewDecoder(cfg.Services, cfg.Environment)
			}
			if check {
				p.topic = &nowhere{}
				return env.reportCheck(c.String("output"), &p, p.run(ctx, input))
			}
			client, err := topic.NewClient(ctx, cfg.TopicName(), app.PubSubOptions(cfg)...)
			if err != nil {
				return err
			}
			defer client.Close() //nolint:errcheck // Everything is confirmed by then.
			p.topic = client
			return env.reportPublish(c.String("output"), &p, p.run(ctx, input))
		},
	}
}

// nowhere is a topic for events that are only checked.
type nowhere struct{}

func (*nowhere) Publish(context.Context, []*pubsubpb.PubsubMessage) error { return nil }

// report prints what became of the lines, as JSON or as a sentence. Without
// another error, bad lines are one.
func (p *publisher) report(env environment, output string, asJSON any, sentence, fault string, err error) error {
	if output == "json" {
		err = errors.Join(err, printJSON(env.stdout, asJSON))
	} else {
		_, printErr := fmt.Fprintln(env.stdout, sentence)
		err = errors.Join(err, printErr)
	}
	if err == nil && p.done.Invalid > 0 {
		return reported{errors.New(fault)}
	}
	return err
}

func (env environment) reportPublish(output string, p *publisher, err error) error {
	return p.report(env, output, p.done,
		fmt.Sprintf("published %d events to %s; %d lines were not published", p.done.Published, p.topicName, p.done.Invalid),
		"some lines were not published", err)
}

func (env environment) reportCheck(output string, p *publisher, err error) error {
	counts := struct {
		Valid   int `json:"valid"`
		Invalid int `json:"invalid"`
	}{p.done.Published, p.done.Invalid}
	return p.report(env, output, counts,
		fmt.Sprintf("checked %s: %d valid, %d invalid", p.source, counts.Valid, counts.Invalid),
		"some lines are not valid", err)
}

// publisher publishes lines in their order.
type publisher struct {
	topic     topic.Publisher
	topicName string
	bounds    *patience.Bounds
	decoder   *event.Decoder // nil: nothing is checked
	stderr    io.Writer
	source    string

	request []*pubsubpb.PubsubMessage
	first   int // line of the request's first message
	size    int
	done    struct {
		Published int `json:"published"`
		Invalid   int `json:"invalid"`
	}
}

// maxLine is more than 10 MB in base64.
const maxLine = 32 << 20

// publishPatience is how long Pub/Sub may be away, and refusalPatience how long it
// may refuse the first request. Tests do not wait that long.
var (
	publishPatience = time.Minute
	refusalPatience = 15 * time.Second
)

// publishBounds are those of all requests to one topic.
func publishBounds() *patience.Bounds {
	return &patience.Bounds{Outage: publishPatience, Refusal: refusalPatience}
}

// sayRetrying tells that a request to publish is tried again.
func sayRetrying(say func(format string, args ...any)) func(error, patience.Class) {
	return func(err error, class patience.Class) {
		if class == patience.Refusal {
			say("worker: Pub/Sub refuses the events; trying again, because what was just created or granted takes a while: %v", err)
			return
		}
		say("worker: Pub/Sub does not take events; trying again: %v", err)
	}
}

func (p *publisher) run(ctx context.Context, input io.Reader) error {
	lines := bufio.NewReaderSize(input, 1<<20)
	for n := 1; ; n++ {
		text, err := readLine(lines)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return fmt.Errorf("%s: line %d: %w", p.source, n, err)
		}
		if len(bytes.TrimSpace(text)) > 0 {
			if err := p.take(ctx, n, text); err != nil {
				return err
			}
		}
		// Nothing waits while a slow input makes up its mind.
		if last || lines.Buffered() == 0 {
			if err := p.flush(ctx); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// readLine returns the next line without its break, in memory of its own.
func readLine(r *bufio.Reader) ([]byte, error) {
	var text []byte
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		if len(text) > maxLine {
			return nil, fmt.Errorf("expected lines of at most %d bytes", maxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			for len(text) > 0 && (text[len(text)-1] == '\n' || text[len(text)-1] == '\r') {
				text = text[:len(text)-1]
			}
			return text, err
		}
	}
}

// take checks a line and adds it to the request.
func (p *publisher) take(ctx context.Context, n int, text []byte) error {
	parsed, err := line.Parse(text)
	if err != nil {
		p.refuse(n, err)
		return nil
	}
	if p.decoder != nil {
		_, rejection := p.decoder.Decode(event.Message{PublishTime: time.Now(), Data: parsed.Data, Attributes: parsed.Attributes})
		if rejection != nil {
			p.refuse(n, rejection)
			return nil
		}
	}
	m := &pubsubpb.PubsubMessage{Data: parsed.Data, Attributes: parsed.Attributes, OrderingKey: parsed.OrderingKey}
	if p.decoder != nil {
		if err := topic.Check(m); err != nil {
			p.refuse(n, err)
			return nil
		}
	}
	size := topic.Size(m)
	if len(p.request) > 0 && (len(p.request) == topic.MaxRequestMessages || p.size+size > topic.MaxRequestBytes ||
		p.request[0].GetOrderingKey() != m.GetOrderingKey()) {
		if err := p.flush(ctx); err != nil {
			return err
		}
	}
	if len(p.request) == 0 {
		p.first = n
	}
	p.request, p.size = append(p.request, m), p.size+size
	return nil
}

func (p *publisher) refuse(n int, why error) {
	p.done.Invalid++
	fmt.Fprintf(p.stderr, "%s:%d: %v\n", p.source, n, why)
}

// flush publishes the request and waits until it is confirmed.
func (p *publisher) flush(ctx context.Context) error {
	if len(p.request) == 0 {
		return nil
	}
	err := topic.PublishPatiently(ctx, p.topic, p.request, p.bounds, sayRetrying(func(format string, args ...any) {
		fmt.Fprintf(p.stderr, format+"\n", args...)
	}))
	if err != nil {
		return fmt.Errorf("publish to %s (PUBSUB_TOPIC) from line %d on: %w", p.topicName, p.first, err)
	}
	p.done.Published += len(p.request)
	p.request, p.size = nil, 0
	return nil
}
