package dlqui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/plan"
	"github.com/sourcegraph/telemetry-relay/internal/dlq/spool"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/servicesyaml"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

const secret = "S3CRET"

// fakeQueue is a queue in memory, and a record of the commands that were run.
type fakeQueue struct {
	messages []*pubsubpb.PubsubMessage
	reading  Reading
	readErr  error
	decoder  *event.Decoder

	mu        sync.Mutex
	ran       [][]string
	revealed  []string
	revealErr error
	// runs, if set, is what a command does.
	runs func(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

func (q *fakeQueue) Read(_ context.Context, into *spool.Writer, progress func(int)) (Reading, error) {
	if q.readErr != nil {
		return Reading{}, q.readErr
	}
	for _, m := range q.messages {
		if err := into.Add(m); err != nil {
			return Reading{}, err
		}
	}
	progress(len(q.messages))
	return q.reading, nil
}

func (q *fakeQueue) Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	q.mu.Lock()
	q.ran = append(q.ran, args)
	runs := q.runs
	q.mu.Unlock()
	if runs == nil {
		return 0
	}
	return runs(ctx, args, stdout, stderr)
}

func (q *fakeQueue) commands() [][]string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.ran)
}

func (q *fakeQueue) Reveal(_ context.Context, s *dlq.Stored) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.revealErr != nil {
		return q.revealErr
	}
	q.revealed = append(q.revealed, s.ID)
	return nil
}

func (q *fakeQueue) Owner(service string) (owner, runbook string) {
	if service == "sams" {
		return "core-services", "https://example.com/sams"
	}
	return "", ""
}

func (q *fakeQueue) Check(m event.Message) *event.Rejection {
	_, rejection := q.decoder.Decode(m)
	return rejection
}

// rejected makes a dead-lettered message of the service sams.
func rejected(i int, detail, data string, attributes ...string) *pubsubpb.PubsubMessage {
	m := &pubsubpb.PubsubMessage{
		MessageId: fmt.Sprintf("q%d", i), PublishTime: timestamppb.Now(), Data: []byte(data),
		Attributes: map[string]string{
			"service_id": "sams", "service_version": "1.85.0", "dlq_reason": "invalid_event", "dlq_detail": detail,
			"dlq_message_id": fmt.Sprintf("m%d", i), "dlq_event_id": fmt.Sprintf("019a0000-0000-7000-8000-%012d", i),
			"dlq_rejected_at": time.Now().Add(-time.Duration(i) * time.Minute).UTC().Format(time.RFC3339), "dlq_attempts": "0",
		},
	}
	for i := 0; i < len(attributes); i += 2 {
		m.Attributes[attributes[i]] = attributes[i+1]
	}
	return m
}

const (
	userDetail = "user.userId: expected an integer, got a string"
	typoDetail = "typo: unknown field; expected one of feature, action"
)

func userData(id string) string {
	return fmt.Sprintf(`{"feature":"sams.user","action":"signedIn","user":{"userId":%q},"privateMetadata":{"mail":%q}}`, id, secret)
}

// faultID is the id of a detail of invalid_event of sams.
func faultID(detail string) string {
	return dlq.FaultOf(&dlq.Stored{Reason: event.InvalidEvent, Service: "sams", Detail: detail}).ID()
}

// browser asks a server as a browser does that was admitted.
type browser struct {
	t      *testing.T
	server *Server
	queue  *fakeQueue
	cookie *http.Cookie
	plans  planFolder
}

const testHost = "127.0.0.1:8080"

// serve starts a server on a queue.
func serve(t testing.TB, queue *fakeQueue, change ...func(*Options)) *Server {
	t.Helper()
	services, err := servicesyaml.Parse([]byte("services: [{id: sams}]"))
	if err != nil {
		t.Fatal(err)
	}
	queue.decoder = event.NewDecoder(services, "dev")
	opts := Options{
		About: About{
			Queue: plan.Queue{Project: "p", Subscription: "projects/p/subscriptions/queue", Topic: "projects/p/topics/events"}, Environment: "dev",
			ServicesDigest: "abc", ServicesSource: "WORKER_SERVICES",
		},
		Host: testHost, Plans: filepath.Join(t.TempDir(), "plans"), Spool: t.TempDir(), Refresh: 5 * time.Millisecond, ReceiptsEvery: 5 * time.Millisecond,
	}
	for _, f := range change {
		f(&opts)
	}
	server, err := New(queue, opts)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

// open starts a server on a queue, and waits until it was read.
func open(t *testing.T, queue *fakeQueue, change ...func(*Options)) *browser {
	t.Helper()
	var plans string
	server := serve(t, queue, append(change, func(o *Options) { plans = o.Plans })...)
	t.Cleanup(server.Close)
	b := &browser{t: t, server: server, queue: queue, plans: planFolder(plans)}
	address, err := url.Parse(server.Address())
	if err != nil {
		t.Fatal(err)
	}
	admitted := b.do(http.MethodGet, address.RequestURI(), nil)
	if len(admitted.Result().Cookies()) != 1 {
		t.Fatalf("no cookie: %d %s", admitted.Code, admitted.Body)
	}
	b.cookie = admitted.Result().Cookies()[0]
	b.until(b.read)
	return b
}

// read reports whether no reading goes on.
func (b *browser) read() bool { return b.server.reader.status().phase != goingOn }

// path returns the path of the plan of an operation.
func (b *browser) path(operation string) string { return b.plans.path(operation) }

// until waits for a condition.
func (b *browser) until(ok func() bool) {
	b.t.Helper()
	if !testenv.Within(b.t.Context(), testenv.Patience, ok) {
		b.t.Fatal("it did not become so")
	}
}

func (b *browser) do(method, target string, form url.Values, headers ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	r := httptest.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(form.Encode()))
	r.Host = testHost
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "http://"+testHost)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if b.cookie != nil {
		r.AddCookie(b.cookie)
	}
	w := httptest.NewRecorder()
	b.server.ServeHTTP(w, r)
	return w
}

// get returns a page.
func (b *browser) get(target string) string {
	b.t.Helper()
	w := b.do(http.MethodGet, target, nil)
	if w.Code != http.StatusOK {
		b.t.Fatalf("%s: %d %s", target, w.Code, text(w.Body.String()))
	}
	return w.Body.String()
}

// post sends a form, and returns the answer.
func (b *browser) post(target string, form ...string) *httptest.ResponseRecorder {
	b.t.Helper()
	values := url.Values{"csrf": {b.server.guard.csrf}}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	return b.do(http.MethodPost, target, values)
}

var tag = regexp.MustCompile(`<[^>]*>`)

// text returns the text of a page as one line.
func text(html string) string {
	return strings.Join(strings.Fields(strings.NewReplacer("&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&amp;", "&", "&#43;", "+").Replace(tag.ReplaceAllString(html, " "))), " ")
}

// want fails unless a page has the texts.
func (b *browser) want(page string, texts ...string) {
	b.t.Helper()
	for _, want := range texts {
		if !strings.Contains(text(page), want) {
			b.t.Errorf("the page has no %q:\n%s", want, text(page))
		}
	}
}

// makePlan writes a plan as `dlq plan` does, for the messages of a fault.
func makePlan(path, fault string, step plan.Step, ids ...string) error {
	p := &plan.Plan{
		Version: plan.Version, ID: "20261127T050000Z-abcdef", CreatedAt: time.Now(), Environment: "dev", ServicesDigest: "abc", MaxReplays: 3,
		Queue:  plan.Queue{Project: "p", Subscription: "projects/p/subscriptions/queue", Topic: "projects/p/topics/events"},
		Groups: []plan.Group{{Fault: fault, Reason: "invalid_event", Service: "sams", Detail: "x", Action: step.Action, JQ: step.JQ, Matched: len(ids), Messages: map[string]string{}}},
	}
	for _, id := range ids {
		p.Groups[0].Messages[id] = "origin-" + id
	}
	if err := p.Seal(); err != nil {
		return err
	}
	text, err := p.Encode()
	return errors.Join(err, os.WriteFile(path, text, 0o600))
}
