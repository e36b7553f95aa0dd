package diagnostics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// It sleeps for half a second after it has refused a request, also when the
		// server is closed.
		goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"),
	)
}

const (
	loopback  = "127.0.0.1:4711"
	elsewhere = "10.1.2.3:4711"
)

func options() Options {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "telemetry_relay_things_total", Help: "Things."})
	counter.Add(3)
	registry.MustRegister(counter)
	return Options{
		Version: "1.2.3",
		Metrics: registry,
		Healthy: func() error { return nil },
		Ready:   func() (bool, string) { return true, "" },
	}
}

func ask(h http.Handler, method, path, from, authorization string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = from
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestEndpoints(t *testing.T) {
	opts := options()
	away := options()
	away.Healthy = func() error { return errors.New("the loop is stuck") }
	away.Ready = func() (bool, string) { return false, "the gateway is not available" }
	for _, c := range []struct {
		opts       Options
		path, from string
		code       int
		body       string
	}{
		{opts, "/-/version", elsewhere, 200, "1.2.3"},
		{opts, "/-/healthz", elsewhere, 200, "ok"},
		{opts, "/-/readyz", elsewhere, 200, "ok"},
		{away, "/-/version", elsewhere, 200, "1.2.3"},
		{away, "/-/healthz", elsewhere, 500, "the loop is stuck"},
		{away, "/-/readyz", elsewhere, 500, "the gateway is not available"},
		{opts, "/debug/pprof/", elsewhere, 403, "set DIAGNOSTICS_SECRET to see this from elsewhere"},
		{opts, "/debug/pprof/cmdline", elsewhere, 403, "set DIAGNOSTICS_SECRET to see this from elsewhere"},
		{opts, "/debug/pprof/profile", "not an address", 403, "set DIAGNOSTICS_SECRET to see this from elsewhere"},
		{opts, "/debug/pprof/symbol", elsewhere, 403, "set DIAGNOSTICS_SECRET to see this from elsewhere"},
		{opts, "/debug/pprof/trace", elsewhere, 403, "set DIAGNOSTICS_SECRET to see this from elsewhere"},
		{opts, "/nothing", loopback, 404, "404 page not found\n"},
		{opts, "/", loopback, 404, "404 page not found\n"},
	} {
		w := ask(Handler(c.opts), "GET", c.path, c.from, "")
		if w.Code != c.code || w.Body.String() != c.body {
			t.Errorf("%s: %d %q, want %d %q", c.path, w.Code, w.Body, c.code, c.body)
		}
	}
	if w := ask(Handler(opts), "GET", "/metrics", elsewhere, ""); w.Code != 200 || !strings.Contains(w.Body.String(), "\ntelemetry_relay_things_total 3\n") {
		t.Errorf("metrics: %d %s", w.Code, w.Body)
	}
	if w := ask(Handler(opts), "GET", "/-/version", elsewhere, ""); w.Header().Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("version: %v", w.Header())
	}
	for _, from := range []string{loopback, "[::1]:1", "[::ffff:127.0.0.1]:1", "127.9.9.9:1"} {
		if w := ask(Handler(opts), "GET", "/debug/pprof/", from, ""); w.Code != 200 || !strings.Contains(w.Body.String(), "goroutine") {
			t.Errorf("pprof from %s: %d", from, w.Code)
		}
	}
	for _, path := range []string{"/-/version", "/-/healthz", "/-/readyz", "/metrics"} {
		if w := ask(Handler(opts), "POST", path, loopback, ""); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", path, w.Code)
		}
	}
}

func TestSecret(t *testing.T) {
	opts := options()
	opts.Secret = "s3cret"
	opts.Healthy = func() error { return errors.New("the reason") }
	h := Handler(opts)
	for _, path := range []string{"/-/healthz", "/-/readyz", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/goroutine", "/debug/pprof/profile", "/debug/pprof/trace"} {
		for _, authorization := range []string{"", "s3cret", "Bearer", "Bearer ", "Bearer s3cre", "Bearer s3crett", "Bearer S3cret", "Bearer  s3cret", "Basic s3cret", "Basic czNjcmV0"} {
			w := ask(h, "GET", path, loopback, authorization)
			if w.Code != http.StatusUnauthorized || w.Body.String() != "unauthorized" || w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s with %q: %d %q", path, authorization, w.Code, w.Body)
			}
		}
	}
	for path, code := range map[string]int{"/-/healthz": 500, "/-/readyz": 200, "/debug/pprof/": 200, "/debug/pprof/cmdline": 200} {
		if w := ask(h, "GET", path, elsewhere, "Bearer s3cret"); w.Code != code {
			t.Errorf("%s with the secret: %d %s", path, w.Code, w.Body)
		}
	}
	for _, path := range []string{"/-/version", "/metrics"} {
		if w := ask(h, "GET", path, elsewhere, ""); w.Code != 200 {
			t.Errorf("%s without the secret: %d", path, w.Code)
		}
	}
	// Without a secret, an empty token is no key to anything.
	if w := ask(Handler(options()), "GET", "/debug/pprof/", elsewhere, "Bearer "); w.Code != http.StatusForbidden {
		t.Errorf("pprof: %d", w.Code)
	}
}

func start(t *testing.T) *Server {
	t.Helper()
	opts := options()
	opts.Addr = "127.0.0.1:0"
	s, err := Start(t.Context(), opts)
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

func TestServer(t *testing.T) {
	s := start(t)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	r, err := client.Get("http://" + s.Addr() + "/-/version")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	_ = r.Body.Close()
	if err != nil || string(body) != "1.2.3" {
		t.Errorf("%q, %v", body, err)
	}
	if _, err := Start(t.Context(), Options{Addr: s.Addr(), Metrics: prometheus.NewRegistry()}); err == nil ||
		!strings.Contains(err.Error(), s.Addr()) || !strings.Contains(err.Error(), "PORT or WORKER_DIAGNOSTICS_ADDR") {
		t.Errorf("an address that is taken: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", s.Addr()); err == nil {
		t.Error("listens after Close")
	}
}

func TestHeaderIsBounded(t *testing.T) {
	s := start(t)
	for size, want := range map[int]int{
		15 << 10: http.StatusOK,
		17 << 10: http.StatusRequestHeaderFieldsTooLarge,
		64 << 10: http.StatusRequestHeaderFieldsTooLarge,
	} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		go func() {
			_, _ = fmt.Fprintf(conn, "GET /-/version HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", size))
		}()
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Body.Close()
		if r.StatusCode != want {
			t.Errorf("%d bytes of header: got %s", size, r.Status)
		}
	}
	if s.http.ReadHeaderTimeout <= 0 || s.http.ReadTimeout <= 0 || s.http.WriteTimeout <= 0 || s.http.IdleTimeout <= 0 {
		t.Errorf("a client may take all the time it likes: %+v", s.http)
	}
}

// TestConnectionsAreBounded lets whoever comes when all connections are taken
// wait until one is free.
func TestConnectionsAreBounded(t *testing.T) {
	s := start(t)
	request := func(conn net.Conn, patience time.Duration) error {
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprint(conn, "GET /-/version HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r.Body)
		return errors.Join(err, r.Body.Close())
	}
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	var open []net.Conn
	for range maxConnections {
		conn := dial()
		if err := request(conn, 30*time.Second); err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	waiting := dial()
	if err := request(waiting, 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("one connection too many: %v", err)
	}
	_ = open[0].Close()
	_ = waiting.SetDeadline(time.Now().Add(30 * time.Second))
	r, err := http.ReadResponse(bufio.NewReader(waiting), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Errorf("after one was closed: %s", r.Status)
	}
}

// TestBodyIsBounded sends a body to the one endpoint that reads any.
func TestBodyIsBounded(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/debug/pprof/symbol", strings.NewReader(strings.Repeat("0x1+", 1<<20)))
	r.RemoteAddr = loopback
	counted := &countingReader{Reader: r.Body}
	r.Body = counted
	Handler(options()).ServeHTTP(w, r)
	if counted.n > 2*maxHeader {
		t.Errorf("%d bytes were read", counted.n)
	}
}

type countingReader struct {
	io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += n
	return n, err
}

func (*countingReader) Close() error { return nil }
