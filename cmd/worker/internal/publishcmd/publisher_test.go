package publishcmd

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// pickyTopic refuses requests with a message that has the attribute bad.
type pickyTopic struct {
	published []string
	err       error
}

func (p *pickyTopic) Publish(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
	if p.err != nil {
		return p.err
	}
	for _, m := range messages {
		if _, bad := m.GetAttributes()["bad"]; bad {
			return status.Error(codes.InvalidArgument, "an attribute is too long")
		}
	}
	for _, m := range messages {
		p.published = append(p.published, m.GetAttributes()["n"])
	}
	return nil
}

func numberedLine(n int, more string) string {
	return fmt.Sprintf(`{"attributes":{"n":"%d"%s},"data":{}}`+"\n", n, more)
}

// TestPublishGoesOn: a bad line is counted and named, and the others are published.
func TestPublishGoesOn(t *testing.T) {
	long := `{"attributes":{"n":"x"},"data":{"x":"` + strings.Repeat("x", maxLine) + `"}}` + "\n"
	var twenty strings.Builder
	for i := range 20 {
		twenty.WriteString(numberedLine(i, ""))
	}
	broken := errors.New("the disk is broken")
	for _, c := range []struct {
		name  string
		input io.Reader
		topic pickyTopic
		want  published
		err   error
		says  []string
	}{
		{"a long line after 20", strings.NewReader(twenty.String() + long + numberedLine(20, "")), pickyTopic{}, published{21, 1, 0}, nil, []string{"in:21: expected lines of at most"}},
		{"a long line at the end", strings.NewReader(twenty.String() + strings.TrimSuffix(long, "\n")), pickyTopic{}, published{20, 1, 0}, nil, []string{"in:21: "}},
		{"one of three is refused", strings.NewReader(numberedLine(1, "") + numberedLine(2, `,"bad":""`) + numberedLine(3, "")), pickyTopic{}, published{2, 1, 0}, nil, []string{"in:2: Pub/Sub refuses it: an attribute is too long"}},
		{"the only one is refused", strings.NewReader(numberedLine(1, `,"bad":""`)), pickyTopic{}, published{0, 1, 0}, nil, []string{"in:1: "}},
		{"one is larger than any may be", strings.NewReader(numberedLine(1, "") + numberedLine(2, `,"x":"`+strings.Repeat("x", maxMessage)+`"`) + numberedLine(3, "")), pickyTopic{}, published{2, 1, 0}, nil, []string{"in:2: the message has "}},
		{"the input breaks", io.MultiReader(strings.NewReader(twenty.String()), brokenReader{broken}), pickyTopic{}, published{20, 0, 0}, broken, nil},
		{"the topic is gone", strings.NewReader(twenty.String()), pickyTopic{err: status.Error(codes.NotFound, "no topic")}, published{0, 0, 20}, errPublish, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stderr bytes.Buffer
			p := publisher{topic: &c.topic, bounds: command.PublishBounds(300 * time.Millisecond), source: "in", stderr: &stderr}
			err := p.run(t.Context(), c.input)
			if p.done != c.want || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || len(c.topic.published) != c.want.Published {
				t.Errorf("%+v, want %+v; %v; published are %v", p.done, c.want, err, c.topic.published)
			}
			for _, want := range c.says {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("want %q in %.300s", want, stderr.String())
				}
			}
		})
	}
}

type brokenReader struct{ error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.error }

// TestPublishInterrupted: a pipe on which nothing comes does not keep the command.
func TestPublishInterrupted(t *testing.T) {
	const ledger = "projects/p/subscriptions/ledger"
	server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{PullWait: 40 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if err := errors.Join(server.CreateTopic("projects/p/topics/telemetry-events"), server.CreateSubscription(ledger, "projects/p/topics/telemetry-events")); err != nil {
		t.Fatal(err)
	}
	in, out := io.Pipe()
	defer out.Close()
	var stdout, stderr bytes.Buffer
	env := command.Env{
		Args: []string{"worker", "publish", "--as-is"}, Vars: []string{"GOOGLE_CLOUD_PROJECT=p", "PUBSUB_EMULATOR_HOST=" + server.Addr()},
		Stdin: in, Stdout: &stdout, Stderr: &stderr,
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, env) }()
	if _, err := io.WriteString(out, numberedLine(1, "")); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); server.Stats(ledger).Backlog == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("what came is not published")
		}
	}
	cancel()
	select {
	case status := <-ended:
		if status != command.ExitFailed || !strings.HasPrefix(stdout.String(), "published 1 events") || !strings.Contains(stderr.String(), "interrupted") {
			t.Errorf("status %d, %s%s", status, stdout.String(), stderr.String())
		}
	case <-time.After(time.Minute):
		t.Fatal("still waiting for its input")
	}
}

// TestPublishEncodings: a byte order mark does no harm, and what is no text in
// UTF-8 is named.
func TestPublishEncodings(t *testing.T) {
	good := `{"attributes":{"service_id":"sams"},"data":{"feature":"sams.user","action":"created"}}` + "\n"
	utf16 := func(text, mark string) string {
		out := mark
		for _, c := range text {
			out += string([]byte{byte(c), 0})
		}
		return out
	}
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	if _, err := io.WriteString(w, good); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for name, c := range map[string]struct {
		input string
		want  string
	}{
		"byte order mark": {"\ufeff" + good, ""},
		"UTF-16":          {utf16(good, "\xff\xfe"), "UTF-16"},
		"UTF-16, bare":    {utf16(good, ""), "UTF-16"},
		"gzip":            {zipped.String(), "gzip"},
		"one byte":        {"{", "does not end"},
		"nothing":         {"", ""},
	} {
		var stderr bytes.Buffer
		status := run(t.Context(), command.Env{
			Args: []string{"worker", "publish", "--check"}, Stdin: strings.NewReader(c.input), Stdout: io.Discard, Stderr: &stderr,
		})
		if (status == command.ExitOK) != (c.want == "") || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: status %d, %s", name, status, stderr.String())
		}
	}
}
