package dlqcmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// uiBrowser is a browser at the pages that `dlq ui` serves.
type uiBrowser struct {
	*testing.T
	client *http.Client
	base   string
	state  string // the user's state folder
	stderr *syncBuffer
}

// syncBuffer is a buffer that a command writes while a test reads.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

var printedAddress = regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+/start\?token=\S+`)

// ui runs `dlq ui` until the end of the test, and opens its address.
func (h *testQueue) ui(vars ...string) *uiBrowser {
	t := h.t
	t.Helper()
	state := t.TempDir()
	env := h.environment("ui")
	env.Vars = append(append(env.Vars, "XDG_STATE_HOME="+state), vars...)
	stdout, stderr := &syncBuffer{}, &syncBuffer{}
	env.Stdout, env.Stderr = stdout, stderr
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, env) }()
	t.Cleanup(func() {
		stop()
		if status := <-ended; status != 0 {
			t.Errorf("dlq ui ended with %d: %s", status, stderr)
		}
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &uiBrowser{T: t, client: &http.Client{Jar: jar}, state: state, stderr: stderr}
	var address string
	b.until(func() bool { address = printedAddress.FindString(stdout.String()); return address != "" })
	b.base = address[:strings.Index(address, "/start")]
	t.Cleanup(b.client.CloseIdleConnections)
	b.get(strings.TrimPrefix(address, b.base))
	b.until(func() bool { return !strings.Contains(b.get("/"), "Reading the queue") })
	return b
}

func (b *uiBrowser) until(ok func() bool) {
	b.Helper()
	if !testenv.Within(b.Context(), 30*time.Second, ok) {
		b.Fatalf("it did not become so in 30 s; stderr: %s", b.stderr)
	}
}

// do returns the text of an answer.
func (b *uiBrowser) do(r *http.Request) string {
	b.Helper()
	answer, err := b.client.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		b.Fatal(err)
	}
	return string(body)
}

func (b *uiBrowser) get(target string) string {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, b.base+target, nil)
	if err != nil {
		b.Fatal(err)
	}
	return b.do(r)
}

var csrfField = regexp.MustCompile(`name="csrf" value="([^"]+)"`)

// post sends a form of a page, and returns the page after it.
func (b *uiBrowser) post(page, target string, form ...string) string {
	b.Helper()
	match := csrfField.FindStringSubmatch(b.get(page))
	if match == nil {
		b.Fatalf("%s has no form", page)
	}
	values := url.Values{"csrf": {match[1]}}
	for i := 0; i < len(form); i += 2 {
		values.Set(form[i], form[i+1])
	}
	r, err := http.NewRequestWithContext(b.Context(), http.MethodPost, b.base+target, strings.NewReader(values.Encode()))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", b.base)
	return b.do(r)
}

var tags = regexp.MustCompile(`<[^>]*>`)

func (b *uiBrowser) want(page string, texts ...string) {
	b.Helper()
	plain := strings.Join(strings.Fields(tags.ReplaceAllString(page, " ")), " ")
	for _, text := range texts {
		if !strings.Contains(plain, text) {
			b.Errorf("no %q in\n%s", text, plain)
		}
	}
}

var operationLink = regexp.MustCompile(`/operations/[0-9]{8}T[0-9]{6}Z-[a-z2-7]{6}`)

// TestUIReplaysFault replays a fault through the pages, which run the commands. The events
// leave the queue fixed, and the journal has them.
func TestUIReplaysFault(t *testing.T) {
	h := newTestQueue(t)
	for i := range 20 {
		h.put(deadLettered(i, typoData(i)))
	}
	b := h.ui()
	b.want(b.get("/"), "1 fault of 1, 20 messages", "typo: unknown field; expected none", "team-sams")
	id := regexp.MustCompile(`F-[0-9a-f]{6}`).FindString(b.get("/"))
	b.want(b.get("/faults/"+id+"/fix?all=1"), "del(.typo)", "20 would pass", "20 lose data", "typo number removed")
	b.want(b.post("/faults/"+id, "/plan", "fault", id, "action", "jq", "jq", "del(.typo)"), "20 to replay", "correct and replay del(.typo)")
	planning := b.post("/plan", "/plan/make")
	to := operationLink.FindString(planning)
	b.until(func() bool { return strings.Contains(b.get(to), "Apply the plan") })
	b.want(b.get(to), "20 to replay", "planned", "typo: number removed in 20", "confirm")
	b.want(b.post(to, to+"/apply", "count", "19"), "the number typed is 19, and it is 20 messages")
	b.post(to, to+"/apply", "count", "20", "canary", "0")
	b.until(func() bool { return strings.Contains(b.get(to), "applying: ended") })
	b.want(b.get(to), "20 published", "0 not done yet", "Puts the 20 messages")
	published := h.replayed(20)
	if strings.Contains(string(published[0].GetData()), "typo") {
		t.Errorf("published %s", published[0].GetData())
	}
	b.post("/", "/read")
	b.until(func() bool { return strings.Contains(b.get("/"), "No dead-lettered messages") })
	// The commands know the plan, too.
	path := filepath.Join(b.state, "telemetry-relay", "plans", filepath.Base(to)+".json")
	result := h.dlq(t.Context(), "status", path, "--output", "json")
	var status struct{ Planned, Published, Todo int }
	if err := json.Unmarshal([]byte(result.stdout), &status); err != nil || status.Planned != 20 || status.Published != 20 || status.Todo != 0 {
		t.Errorf("status %+v", result)
	}
}

// TestUIOpensBrowser: at a terminal the browser is opened, with a file that only the person
// can read and that is gone afterwards.
func TestUIOpensBrowser(t *testing.T) {
	h, term := newTestQueue(t), newTerminal(t)
	opened := make(chan string, 1)
	opts := testOptions
	opts.OpenBrowser = func(_ context.Context, path string) error {
		opened <- path
		return nil
	}
	env := h.environment("ui", "--plans", t.TempDir())
	stdout := &syncBuffer{}
	env.Stdin, env.Stdout, env.Stderr = term.tty, stdout, io.Discard
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- command.Main(ctx, env, func(env command.Env) *cli.Command {
			return &cli.Command{Name: "worker", Commands: []*cli.Command{New(env, opts)}, Writer: env.Stdout, ErrWriter: env.Stderr}
		})
	}()
	path := <-opened
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	address := printedAddress.FindString(stdout.String())
	if address == "" || !strings.Contains(string(text), "url="+address+`"`) {
		t.Errorf("the file does not lead to %q: %s", address, text)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	stop()
	if status := <-ended; status != 0 {
		t.Errorf("exit status %d", status)
	}
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}
}

// TestUIRestoresPurged: the pages put purged messages back, once the number is typed.
func TestUIRestoresPurged(t *testing.T) {
	h := newTestQueue(t)
	for i := range 3 {
		h.put(deadLettered(i, typoData(i)))
	}
	b := h.ui()
	id := regexp.MustCompile(`F-[0-9a-f]{6}`).FindString(b.get("/"))
	b.post("/faults/"+id, "/plan", "fault", id, "action", "purge")
	to := operationLink.FindString(b.post("/plan", "/plan/make"))
	b.until(func() bool { return strings.Contains(b.get(to), "Apply the plan") })
	b.post(to, to+"/apply", "count", "3")
	b.until(func() bool { return strings.Contains(b.get(to), "applying: ended") })
	b.want(b.get(to), "3 purged", "Puts the 3 messages")
	h.left(0)
	b.post(to, to+"/restore", "count", "3")
	b.until(func() bool { return strings.Contains(b.get(to), "restoring: ended") })
	h.left(3)
	for _, m := range h.Messages(dlqSub) {
		original := deadLettered(0, typoData(0))
		if i, _ := strconv.Atoi(strings.TrimPrefix(m.GetAttributes()["dlq_message_id"], "m")); i > 0 {
			original = deadLettered(i, typoData(i))
		}
		if string(m.GetData()) != string(original.GetData()) || !maps.Equal(m.GetAttributes(), original.GetAttributes()) {
			t.Errorf("restored %v, want %v", m, original)
		}
	}
}

// TestUIRevealIsAudited: the audit file has the account that saw private data, and the
// event.
func TestUIRevealIsAudited(t *testing.T) {
	h := newTestQueue(t)
	ids := h.put(deadLettered(1, typoData(1)))
	b := h.ui()
	if page := b.get("/events/" + ids[0]); strings.Contains(page, secretValue) {
		t.Fatal("private data is shown")
	}
	b.want(b.post("/events/"+ids[0], "/events/"+ids[0]+"/reveal"), secretValue)
	audit, err := os.ReadFile(filepath.Join(b.state, "telemetry-relay", "audit.ndjson"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(audit), `"action":"dlq ui reveal"`) || !strings.Contains(string(audit), fmt.Sprintf(`"ids":[%q]`, ids[0])) {
		t.Errorf("audit %s", audit)
	}
	if strings.Contains(string(audit)+b.stderr.String(), secretValue) {
		t.Error("private data is in the logs")
	}
}

// TestUIBesideOtherReaders: the page says that another reader has leased messages. A plan
// that a command applies is not applied twice.
func TestUIBesideOtherReaders(t *testing.T) {
	h := newTestQueue(t)
	for i := range 10 {
		h.put(deadLettered(i, goodData(i)))
	}
	b := h.ui()
	id := regexp.MustCompile(`F-[0-9a-f]{6}`).FindString(b.get("/"))
	b.post("/faults/"+id, "/plan", "fault", id, "action", "replay")
	to := operationLink.FindString(b.post("/plan", "/plan/make"))
	b.until(func() bool { return strings.Contains(b.get(to), "Apply the plan") })
	path := filepath.Join(b.state, "telemetry-relay", "plans", filepath.Base(to)+".json")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	waiting, done := make(chan struct{}), make(chan dlqResult)
	var once sync.Once
	go func() {
		done <- h.dlqHearing(ctx, func(said string) {
			if strings.Contains(said, "went ahead") {
				once.Do(func() { close(waiting) })
			}
		}, "apply", path, "--canary", "1", "--canary-wait", "1m", "--yes")
	}()
	<-waiting
	b.want(b.get(to), "Another process applies this plan, begun by")
	b.post(to, to+"/apply", "count", "9")
	b.until(func() bool { return strings.Contains(b.get(to), "ended early") })
	b.want(b.get(to), "another process is at this plan")
	stop()
	<-done
	b.post(to, to+"/apply", "count", "9", "canary", "0")
	b.until(func() bool { return strings.Contains(b.get(to), "applying: ended") })
	h.replayed(10) // each once
}
