package sentry_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sourcegraph/telemetry-relay/internal/sentry"
	"github.com/sourcegraph/telemetry-relay/internal/sentry/sentrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func reporter(t *testing.T, server *sentrytest.Server) (*sentry.Reporter, *slog.Logger) {
	t.Helper()
	r, err := sentry.New(sentry.Options{
		DSN: server.DSN, Service: "telemetry-relay", Environment: "dev", Version: "1.2.3",
		Schedule: "*/15 * * * *", Deadline: 301 * time.Second, Secrets: []string{"", "s3cret"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, slog.New(r.Handler(slog.NewJSONHandler(discard{}, nil)))
}

func closeIt(t *testing.T, r *sentry.Reporter) {
	t.Helper()
	if err := r.Close(patience); err != nil {
		t.Error(err)
	}
}

func TestErrorsAreReported(t *testing.T) {
	server := sentrytest.Start(t)
	r, log := reporter(t, server)
	log = log.With("from", "test").WithGroup("g")
	log.Debug("debug")
	log.Info("info")
	log.Warn("warning")
	log.Error("It is bad", "error", errors.New("refused s3cret"), "n", 7, "long", strings.Repeat("é", 5000))
	closeIt(t, r)
	events := server.Items("event")
	if len(events) != 1 {
		t.Fatalf("got %v", events)
	}
	e := events[0]
	attributes := e["contexts"].(map[string]any)["attributes"].(map[string]any)
	for what, got := range map[string]any{
		"It is bad":             e["message"],
		"error":                 e["level"],
		"dev":                   e["environment"],
		"telemetry-relay@1.2.3": e["release"],
		"[It is bad]":           e["fingerprint"],
		"test":                  attributes["from"],
		"7":                     attributes["g.n"],
		"refused [secret]":      attributes["g.error"],
	} {
		if fmt.Sprint(got) != what {
			t.Errorf("got %v, want %s", got, what)
		}
	}
	if long := attributes["g.long"].(string); len(long) > 1100 || !strings.HasSuffix(long, "é…") {
		t.Errorf("a long text has %d bytes: …%q", len(long), long[len(long)-8:])
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestCheckInsFollowJob(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{"succeeds": {nil, "ok"}, "fails": {errors.New("down"), "error"}} {
		t.Run(name, func(t *testing.T) {
			server := sentrytest.Start(t)
			r, _ := reporter(t, server)
			if err := r.Job(func() error { return c.err }); err != c.err {
				t.Errorf("got %v", err)
			}
			closeIt(t, r)
			checks := server.Items("check_in")
			if len(checks) != 2 || checks[0]["status"] != "in_progress" || checks[1]["status"] != c.want ||
				checks[0]["check_in_id"] != checks[1]["check_in_id"] || checks[0]["check_in_id"] == "" {
				t.Fatalf("got %v", checks)
			}
			for _, check := range checks {
				if check["monitor_slug"] != "telemetry-relay-dev" || check["environment"] != "dev" {
					t.Errorf("got %v", check)
				}
			}
			monitor := checks[0]["monitor_config"].(map[string]any)
			if got := fmt.Sprint(monitor["schedule"], monitor["max_runtime"], monitor["checkin_margin"]); got != "map[type:crontab value:*/15 * * * *] 6 5" {
				t.Errorf("the monitor is %s", got)
			}
		})
	}
}

func TestPanicIsReported(t *testing.T) {
	server := sentrytest.Start(t)
	r, log := reporter(t, server)
	func() {
		defer func() {
			if p := recover(); p != "pr1vate" {
				t.Errorf("the panic is now %v", p)
			}
		}()
		_ = r.Job(func() error {
			defer sentry.Panics(log)
			panic("pr1vate")
		})
	}()
	closeIt(t, r)
	if checks := server.Items("check_in"); len(checks) != 2 || checks[1]["status"] != "error" {
		t.Errorf("got %v", checks)
	}
	events := server.Items("event")
	if len(events) != 1 || events[0]["message"] != "The worker panicked" {
		t.Fatalf("got %v", events)
	}
	if strings.Contains(fmt.Sprint(events), "pr1vate") {
		t.Error("the panic's value is reported")
	}
	if !strings.Contains(fmt.Sprint(events), "TestPanicIsReported") {
		t.Error("no stack")
	}
}

func TestNothingIsSentWithoutDSN(t *testing.T) {
	r, err := sentry.New(sentry.Options{Schedule: "* * * * *"})
	if err != nil {
		t.Fatal(err)
	}
	if h := slog.DiscardHandler; r.Handler(h) != h {
		t.Error("the handler is not left alone")
	}
	ran := false
	if err := r.Job(func() error { ran = true; return nil }); err != nil || !ran {
		t.Error("the job was not run")
	}
	closeIt(t, r)
}

// TestUnavailableSentryDelaysLittle has nobody at Sentry's address: that costs the given time at most.
func TestUnavailableSentryDelaysLittle(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // listens, but nobody answers
	r, err := sentry.New(sentry.Options{DSN: "http://key@" + l.Addr().String() + "/1", Service: "s", Schedule: "* * * * *"})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := r.Job(func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := r.Close(200 * time.Millisecond); err == nil {
		t.Error("nobody took the report, and that is no error")
	}
	if took := time.Since(began); took > patience {
		t.Errorf("it took %v", took)
	}
}
