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
	r.RemoteAddr, r.Host = from, loopback
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestEndpointsAnswer(t *testing.T) {
	opts := options()
	down := options()
	down.Healthy = func() error { return errors.New("the loop is stuck") }
	down.Ready = func() (bool, string) { return false, "the gateway is not available" }
	for _, c := range []struct {
		opts       Options
		path, from string
		code       int
		body       string
	}{
		{opts, "/-/version", elsewhere, 200, "1.2.3"},
		{opts, "/-/healthz", elsewhere, 200, "ok"},
		{opts, "/-/readyz", elsewhere, 200, "ok"},
		{down, "/-/version", elsewhere, 200, "1.2.3"},
		{down, "/-/healthz", elsewhere, 500, "the loop is stuck"},
		{down, "/-/readyz", elsewhere, 500, "the gateway is not available"},
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

func TestEndpointsNeedSecret(t *testing.T) {
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

func TestServerListens(t *testing.T) {
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

// client is one connection.
type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(t *testing.T, s *Server) client {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	return client{conn, bufio.NewReader(conn)}
}

func (c client) get(path string) error {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
		return err
	}
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r.Body)
	if r.StatusCode != http.StatusOK {
		err = errors.Join(err, errors.New(r.Status))
	}
	return errors.Join(err, r.Body.Close())
}

// TestHealthNeverStarves has all connections taken: idle ones, some on which
// nothing was ever sent, and some with half a request. A new client is served.
func TestHealthNeverStarves(t *testing.T) {
	for name, occupy := range map[string]func(t *testing.T, c client){
		"idle": func(t *testing.T, c client) {
			if err := c.get("/-/version"); err != nil {
				t.Fatal(err)
			}
		},
		"silent": func(*testing.T, client) {},
		"half a request": func(t *testing.T, c client) {
			if _, err := fmt.Fprint(c, "GET /-/version HTTP/1.1\r\nHost:"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			for range 3 * maxConnections {
				occupy(t, dial(t, s))
			}
			for range 10 {
				began := time.Now()
				if err := dial(t, s).get("/-/healthz"); err != nil || time.Since(began) > 3*time.Second {
					t.Fatalf("%v after %v", err, time.Since(began))
				}
			}
		})
	}
}

// TestConnectionsAreBounded: the oldest goes, and never one that is being served.
func TestConnectionsAreBounded(t *testing.T) {
	opts := options()
	opts.Addr = "127.0.0.1:0"
	release, serving := make(chan struct{}), make(chan struct{})
	opts.Healthy = func() error { close(serving); <-release; return nil }
	s, err := Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	busy, served := dial(t, s), make(chan error)
	go func() { served <- busy.get("/-/healthz") }()
	<-serving
	oldest := dial(t, s)
	if err := oldest.get("/-/version"); err != nil {
		t.Fatal(err)
	}
	var newest client
	for range maxConnections - 1 {
		newest = dial(t, s)
		if err := newest.get("/-/version"); err != nil {
			t.Fatal(err)
		}
	}
	if err := oldest.get("/-/version"); err == nil {
		t.Error("the oldest connection is still open")
	}
	if err := newest.get("/-/version"); err != nil {
		t.Errorf("the newest connection: %v", err)
	}
	close(release)
	if err := <-served; err != nil {
		t.Errorf("the one that was being served: %v", err)
	}
}

// TestProfilesAreBounded: neither long nor several at a time.
func TestProfilesAreBounded(t *testing.T) {
	h := Handler(options())
	for _, path := range []string{"profile", "trace", "heap", "goroutine", "allocs"} {
		for _, seconds := range []string{"200", "31", "30.5", "1e9", "-1", "0", "NaN", "x"} {
			began := time.Now()
			w := ask(h, "GET", "/debug/pprof/"+path+"?seconds="+seconds, loopback, "")
			if w.Code != http.StatusBadRequest || time.Since(began) > 5*time.Second {
				t.Errorf("%s of %s s: %d after %v", path, seconds, w.Code, time.Since(began))
			}
		}
	}
	first := make(chan int)
	began := time.Now()
	go func() {
		code := http.StatusServiceUnavailable
		for code == http.StatusServiceUnavailable { // the other one came before it
			code = ask(h, "GET", "/debug/pprof/trace?seconds=1", loopback, "").Code
		}
		first <- code
	}()
	refused := false
	for !refused && time.Since(began) < 20*time.Second {
		select {
		case code := <-first: // it was too quick
			t.Fatalf("the first one: %d", code)
		default:
			refused = ask(h, "GET", "/debug/pprof/cmdline", loopback, "").Code == http.StatusServiceUnavailable
		}
	}
	if code := <-first; !refused || code != http.StatusOK {
		t.Errorf("the second one was refused: %v; the first one: %d", refused, code)
	}
	if w := ask(h, "GET", "/debug/pprof/goroutine?debug=1", loopback, ""); w.Code != http.StatusOK {
		t.Errorf("afterwards: %d", w.Code)
	}
}

// TestNothingForwarded: behind a proxy everybody seems to be on loopback.
func TestNothingForwarded(t *testing.T) {
	for _, header := range []string{
		"Forwarded: for=1.2.3.4", "X-Forwarded-For: 127.0.0.1", "x-forwarded-host: a", "X-Forwarded-Proto: https", "X-FORWARDED-PREFIX: /",
		"X-Forwarded: x", "Via: 1.1 proxy", "X-Real-IP: 1.2.3.4", "Host: relay.example.com", "Host: localhost.example.com", "Host: 10.1.2.3:80",
	} {
		name, value, _ := strings.Cut(header, ": ")
		r := httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil)
		r.RemoteAddr, r.Host = loopback, "localhost:4711"
		r.Header[name] = []string{value} // as it is
		if name == "Host" {
			r.Host = value
		}
		w := httptest.NewRecorder()
		Handler(options()).ServeHTTP(w, r)
		if w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", header, w.Code)
		}
		// With the secret it does not matter.
		opts := options()
		opts.Secret = "s3cret"
		r.Header.Set("Authorization", "Bearer s3cret")
		w = httptest.NewRecorder()
		Handler(opts).ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Errorf("%s with the secret: %d", header, w.Code)
		}
	}
	for _, host := range []string{"localhost", "localhost:80", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:80"} {
		if !loopbackName(host) {
			t.Errorf("%s is not loopback", host)
		}
	}
}

// TestBodyIsBounded sends a body to the one endpoint that reads any.
func TestBodyIsBounded(t *testing.T) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/debug/pprof/symbol", strings.NewReader(strings.Repeat("0x1+", 1<<20)))
	r.RemoteAddr, r.Host = loopback, loopback
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
