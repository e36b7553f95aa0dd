package livepage

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func start(t *testing.T, f *Feed) *Server {
	t.Helper()
	s, err := Start(t.Context(), Options{Feed: f, Publisher: []string{"PUBSUB_EMULATOR_HOST=127.0.0.1:1", "GOOGLE_CLOUD_PROJECT=local"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client keeps no connections, so that none is left when a test ends.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// answer is an answer whose body is closed when the test ends.
type answer struct {
	status int
	header http.Header
	body   io.ReadCloser
}

func request(t *testing.T, s *Server, path string, change func(*http.Request)) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(r)
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return answer{response.StatusCode, response.Header, response.Body}
}

func get(t *testing.T, s *Server, path string) string {
	t.Helper()
	a := request(t, s, path, nil)
	body, err := io.ReadAll(a.body)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("%s: %d %v\n%s", path, a.status, err, body)
	}
	return string(body)
}

// sent is a server-sent event.
type sent struct{ id, name, data string }

// stream reads server-sent events.
type stream struct {
	t     *testing.T
	lines *bufio.Scanner
	body  io.Closer
}

func (s *Server) open(t *testing.T, path string, change func(*http.Request)) *stream {
	t.Helper()
	a := request(t, s, path, change)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s: %d", path, a.status)
	}
	return &stream{t, bufio.NewScanner(a.body), a.body}
}

func (s *stream) next() sent {
	s.t.Helper()
	var e sent
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "":
			return e
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			e.data += value + "\n"
		}
	}
	s.t.Fatalf("the stream has ended: %v", s.lines.Err())
	return e
}

// rows reads until the counts, and returns the ids of the rows before them.
func (s *stream) rows() (ids []string, rows, counts string) {
	s.t.Helper()
	for {
		e := s.next()
		switch e.name {
		case "row":
			ids, rows = append(ids, e.id), rows+e.data
		case "counts":
			return ids, rows, e.data
		default:
			s.t.Fatalf("%+v", e)
		}
	}
}

const hostile = `<script>alert(1)</script>"onload='x`

// TestPageNeedsNoScriptAndEscapesTexts: the page has each event with its outcome, also
// when it is loaded without its script.
func TestPageNeedsNoScriptAndEscapesTexts(t *testing.T) {
	f := NewFeed()
	s := start(t, f)
	if page := get(t, s, ""); !strings.Contains(page, "<details open>") || !strings.Contains(page, "export PUBSUB_EMULATOR_HOST=127.0.0.1:1\n") {
		t.Errorf("the empty page says not what to do:\n%s", page)
	}
	at := time.Date(2026, 11, 20, 9, 0, 43, 123e6, time.UTC)
	f.Add(Event{Time: at, Service: "sams", Environment: "dev", Feature: "sams.user", Action: "created", ID: "019aa000", Metadata: "tier=1", PrivateFields: 2})
	f.Add(Event{Time: at, Service: hostile, Environment: hostile, Feature: hostile, Action: hostile, ID: hostile, Reason: "invalid_event", Detail: hostile})
	f.Add(Event{Time: at, Reason: "malformed_payload", Detail: "no JSON"})
	page := get(t, s, "")
	for _, want := range []string{
		`<noscript><meta http-equiv="refresh"`, `<b class="recorded">1 recorded</b>`, `<b class="rejected">2 rejected</b>`,
		`datetime="2026-11-20T09:00:43.123Z">09:00:43.123<`, "sams<small>dev</small>", "sams.user", "created", "tier=1", "2 private fields, hidden", "019aa000",
		"because <code>malformed_payload</code>: no JSON", "&lt;script&gt;alert(1)&lt;/script&gt;", `data-number="3"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("want %q in\n%s", want, page)
		}
	}
	if strings.Contains(page, "<script>") || strings.Contains(page, `"onload`) || strings.Count(page, "<tr class=") != 3 {
		t.Errorf("a text is not escaped:\n%s", page)
	}
	if strings.Index(page, "no JSON") > strings.Index(page, "019aa000") {
		t.Error("the newest is not first")
	}
}

// TestStreamSendsEachEventOnce: an open page gets each event as it arrives, once, and
// after a broken connection the events that it has missed.
func TestStreamSendsEachEventOnce(t *testing.T) {
	f := NewFeed()
	s := start(t, f)
	f.Add(Event{Feature: "first"})
	live := s.open(t, "live?after=0", nil)
	if ids, rows, counts := live.rows(); len(ids) != 1 || ids[0] != "1" || !strings.Contains(rows, "first") || !strings.Contains(counts, "1 recorded") {
		t.Errorf("%q %s %s", ids, rows, counts)
	}
	f.Add(Event{Feature: hostile + "\n\nevent: reload", Reason: "invalid_event", Detail: "because"})
	ids, rows, counts := live.rows()
	if len(ids) != 1 || ids[0] != "2" || !strings.Contains(rows, "because <code>invalid_event</code>: because") || strings.Contains(rows, "<script") || !strings.Contains(counts, "invalid_event 1") {
		t.Errorf("%q %s %s", ids, rows, counts)
	}
	f.SetDuplicates(1)
	if ids, _, counts := live.rows(); len(ids) != 0 || !strings.Contains(counts, "1 duplicate<") {
		t.Errorf("%q %s", ids, counts)
	}
	_ = live.body.Close()
	for i := range 3 {
		f.Add(Event{Feature: fmt.Sprint("f", i)})
	}
	// The header of the browser counts, and not the number of the page.
	again := s.open(t, "live?after=0", func(r *http.Request) { r.Header.Set("Last-Event-ID", "3") })
	if ids, _, _ := again.rows(); fmt.Sprint(ids) != "[4 5]" {
		t.Errorf("%q", ids)
	}
	// A burst is one part with the newest rows.
	for range 3 * MaxRows {
		f.Add(Event{Feature: "burst"})
	}
	var last string
	for n := 0; last != fmt.Sprint(5+3*MaxRows); n++ {
		ids, _, _ := again.rows()
		if len(ids) > MaxRows || n > 2*MaxRows {
			t.Fatalf("%d rows at once", len(ids))
		}
		last = ids[len(ids)-1]
	}
	// A page of an earlier run begins anew.
	if e := s.open(t, "live?after=99999", nil).next(); e.name != "reload" {
		t.Errorf("%+v", e)
	}
}

func TestAnswersLoadNothingFromElsewhere(t *testing.T) {
	s := start(t, NewFeed())
	for _, path := range []string{"", "page.css", "page.js", "nothing"} {
		a := request(t, s, path, nil)
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self';", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
		} {
			if !strings.HasPrefix(a.header.Get(name), want) {
				t.Errorf("%s: %s is %q", path, name, a.header.Get(name))
			}
		}
		if strings.Contains(a.header.Get("Content-Security-Policy"), "unsafe") {
			t.Error("an unsafe policy")
		}
	}
}

func TestServesThisMachineOnly(t *testing.T) {
	s := start(t, NewFeed())
	if !strings.HasPrefix(s.URL(), "http://127.0.0.1:") {
		t.Error(s.URL())
	}
	for host, want := range map[string]int{
		"localhost" + s.addr[strings.LastIndex(s.addr, ":"):]: http.StatusOK,
		"evil.example":         http.StatusMisdirectedRequest,
		"evil.example:80":      http.StatusMisdirectedRequest,
		"127.0.0.1.evil.test:": http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"", "page.js"} {
			if got := request(t, s, path, func(r *http.Request) { r.Host = host }).status; got != want {
				t.Errorf("%s as %s: %d, want %d", path, host, got, want)
			}
		}
	}
}

func TestWrongRequestsAreRefused(t *testing.T) {
	s := start(t, NewFeed())
	for path, want := range map[string]int{"live?after=x": http.StatusBadRequest, "live?after=-1": http.StatusBadRequest, "../etc": http.StatusNotFound} {
		if got := request(t, s, path, nil).status; got != want {
			t.Errorf("%s: %d, want %d", path, got, want)
		}
	}
	posted, err := client.Post(s.URL(), "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	if posted.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", posted.Status)
	}
	_ = posted.Body.Close()
}

// TestStreamsAreBoundedAndEndAtClose: an open page must not delay the end of the worker.
func TestStreamsAreBoundedAndEndAtClose(t *testing.T) {
	s := start(t, NewFeed())
	var open []*stream
	for range maxStreams {
		open = append(open, s.open(t, "live", nil))
		open[len(open)-1].next()
	}
	if got := request(t, s, "live", nil).status; got != http.StatusServiceUnavailable {
		t.Errorf("one more stream: %d", got)
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for _, live := range open {
		for live.lines.Scan() { // to the end
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
