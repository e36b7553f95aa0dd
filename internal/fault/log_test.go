package fault

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sourcegraph/telemetry-relay/internal/testenv"
)

// line is the content of a log line about a fault.
type line struct {
	Fault     string `json:"fault"`
	Count     int    `json:"count"`
	Reason    string `json:"reason"`
	Service   string `json:"service"`
	Detail    string `json:"detail"`
	EventID   string `json:"event_id"`
	MessageID string `json:"message_id"`
	Release   string `json:"release"`
	Named     int    `json:"faults_named"`
	Level     string `json:"level"`
}

// logged runs a test with a Log in fake time. lines returns the lines that were logged since
// the last call.
func logged(t *testing.T, test func(l *Log, lines func() []line)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var out testenv.Buffer
		seen := 0
		l := NewLog(slog.New(slog.NewJSONHandler(&out, nil)))
		test(l, func() []line {
			synctest.Wait()
			var all []line
			text := out.String()
			for d := json.NewDecoder(strings.NewReader(text[seen:])); d.More(); {
				var one line
				if err := d.Decode(&one); err != nil {
					t.Fatal(err)
				}
				if one.Level != "INFO" {
					t.Errorf("level %s", one.Level)
				}
				one.Level = ""
				all = append(all, one)
			}
			seen = len(text)
			return all
		})
		l.Close()
	})
}

const sampleID = "019aa000-0000-7000-8000-000000000001"

func rejection(detail, release string) Rejection {
	return Rejection{Reason: "invalid_event", Service: "sams", Detail: detail, EventID: sampleID, MessageID: "17", Release: release}
}

func TestLogHasALineForEachFaultAndMinute(t *testing.T) {
	logged(t, func(l *Log, lines func() []line) {
		l.Add(rejection("user.userId: expected an integer, got a string", "1.85.0"))
		l.Add(rejection("user.userId: expected an integer, got a string", "1.85.1"))
		l.Add(Rejection{Reason: "malformed_payload", Service: "al ice", Detail: `got "alice@example.com"`, EventID: "alice@example.com", MessageID: "18", Release: "a b"})
		time.Sleep(logEvery - time.Second)
		if got := lines(); got != nil {
			t.Errorf("within the minute: %+v", got)
		}
		time.Sleep(time.Second)
		id := Of("invalid_event", "sams", "user.userId: expected an integer, got a string").ID()
		want := []line{
			{Fault: id, Count: 2, Reason: "invalid_event", Service: "sams", Detail: "user.userId: expected an integer, got a string", EventID: sampleID, MessageID: "17", Release: "1.85.0"},
			{Fault: Of("malformed_payload", "al ice", `got "x"`).ID(), Count: 1, Reason: "malformed_payload", Service: Hidden, Detail: `got "…"`, MessageID: "18", Release: Hidden},
		}
		if diff := cmp.Diff(want, lines()); diff != "" {
			t.Errorf("after a minute (-want +got):\n%s", diff)
		}
		time.Sleep(3 * logEvery)
		if got := lines(); got != nil {
			t.Errorf("without a rejection: %+v", got)
		}
		l.Add(rejection("user.userId: expected an integer, got a string", "1.85.2"))
		l.Close()
		want = []line{{Fault: id, Count: 1, Reason: "invalid_event", Service: "sams", Detail: "user.userId: expected an integer, got a string", EventID: sampleID, MessageID: "17", Release: "1.85.2"}}
		if diff := cmp.Diff(want, lines()); diff != "" {
			t.Errorf("at the end (-want +got):\n%s", diff)
		}
	})
}

// TestLogIsBounded: a publisher that invents faults does not add lines to the log. The lines
// still count every rejection.
func TestLogIsBounded(t *testing.T) {
	for name, c := range map[string]struct {
		detail func(i int) string
		n      int
	}{
		"many faults":                   {func(i int) string { return "field" + alphabetic(i) + ": unknown field" }, 3000},
		"more details than are kept":    {func(i int) string { return fmt.Sprintf(`feature: got "%d"`, i) }, 3000},
		"more than can be normalized":   {func(i int) string { return fmt.Sprintf(`feature: got "%d"`, i) }, maxNormalized + 500},
		"more than the queue has space": {func(int) string { return "feature: missing" }, 3 * maxQueued},
	} {
		t.Run(name, func(t *testing.T) {
			logged(t, func(l *Log, lines func() []line) {
				for i := range c.n {
					if l.Add(rejection(c.detail(i), "1")); i%1000 == 0 && name != "more than the queue has space" {
						synctest.Wait()
					}
				}
				time.Sleep(logEvery)
				got, sum := lines(), 0
				for _, one := range got {
					sum += one.Count
				}
				if len(got) > maxFaults+1 || sum != c.n {
					t.Errorf("%d lines with %d rejections, want at most %d with %d", len(got), sum, maxFaults+1, c.n)
				}
				if len(got) == maxFaults+1 && (got[maxFaults].Fault != "other" || got[maxFaults].Named != maxFaults) {
					t.Errorf("the last line is %+v", got[maxFaults])
				}
			})
		})
	}
}

// alphabetic returns a number in the form a, b, …: a detail's digits may be normalized.
func alphabetic(i int) (s string) {
	for ; i > 0; i /= 26 {
		s += string(rune('a' + i%26))
	}
	return s
}
