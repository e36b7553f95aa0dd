package dlqui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"go.uber.org/goleak"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func recorder() *httptest.ResponseRecorder { return httptest.NewRecorder() }

// queueOf returns messages with a detail.
func queueOf(n int, detail string) []*pubsubpb.PubsubMessage {
	var all []*pubsubpb.PubsubMessage
	for i := range n {
		all = append(all, rejected(i, detail, userData(fmt.Sprint(i))))
	}
	return all
}

// TestPagesWarnOfAnotherServicesList: a check with another list than that of the worker
// proves nothing.
func TestPagesWarnOfAnotherServicesList(t *testing.T) {
	b := open(t, &fakeQueue{reading: Reading{Running: dlq.Worker{ServicesDigest: "other"}, Said: []string{"another process has leased 3 messages"}}})
	b.want(b.get("/"), "The running worker has another services list, other", "at least 0 messages", "another process has leased 3 messages", "No dead-lettered messages.")
}

func TestReadingThatFailedIsTriedAgain(t *testing.T) {
	queue := &fakeQueue{readErr: errors.New("DLQ_SUBSCRIPTION: it does not exist")}
	b := open(t, queue)
	b.want(b.get("/"), "The queue cannot be read: DLQ_SUBSCRIPTION: it does not exist", "Try again")
	queue.readErr = nil
	if w := b.post("/read"); w.Code != http.StatusSeeOther {
		t.Errorf("status %d", w.Code)
	}
	b.until(b.read)
	b.want(b.get("/"), "No dead-lettered messages.")
}

func TestTextsOfPublishersAreEscapedAndClipped(t *testing.T) {
	const script = `<script>alert(1)</script>`
	big := `{"feature":"` + script + `","action":"` + strings.Repeat("x", 3<<20) + `"}`
	messages := []*pubsubpb.PubsubMessage{
		rejected(1, script+": \x1b[31m\u202e"+script, big, "service_id", script, "service_version", script, "dlq_message_id", "../"+script, "dlq_event_id", script, script, script),
		{MessageId: `"><img src=x>`, Data: []byte(script)},
		rejected(2, userDetail, "x", "dlq_encoding", "gzip"),
	}
	b := open(t, &fakeQueue{messages: messages})
	targets := []string{"/", "/?text=" + url.QueryEscape(script) + "&reason=" + url.QueryEscape(script), "/plan"}
	for _, f := range b.server.reader.spool.Faults() {
		targets = append(targets, "/faults/"+f.ID, "/faults/"+f.ID+"/fix?all=1&jq="+url.QueryEscape(`"`+script+`"`))
	}
	for _, m := range messages {
		targets = append(targets, eventPath(m.GetMessageId()))
	}
	for _, target := range targets {
		page := b.get(target)
		if strings.Contains(page, script) || strings.Contains(page, "<img") || strings.ContainsAny(page, "\x1b\u202e") {
			t.Errorf("%s: a text of a publisher is not escaped", target)
		}
		if len(page) > 200<<10 {
			t.Errorf("%s has %d bytes", target, len(page))
		}
	}
	if page := b.post("/events/q1/reveal").Body.String(); strings.Contains(page, script) || len(page) > 600<<10 {
		t.Errorf("the revealed event is not escaped or clipped: %d bytes", len(page))
	}
}

// TestCloseStopsCommandsAndRemovesSpool: Close stops a command as an interrupt does.
func TestCloseStopsCommandsAndRemovesSpool(t *testing.T) {
	queue := &fakeQueue{messages: queueOf(3, userDetail)}
	stopped := false
	queue.runs = func(ctx context.Context, _ []string, _, _ io.Writer) int {
		<-ctx.Done()
		stopped = true
		return 1
	}
	folder := t.TempDir()
	b := open(t, queue, func(o *Options) { o.Spool = folder })
	b.post("/operations/"+b.planned()+"/apply", "count", "3")
	b.server.Close()
	if left, err := filepath.Glob(folder + "/*"); !stopped || err != nil || len(left) > 0 {
		t.Errorf("stopped %v, left %v, %v", stopped, left, err)
	}
}
