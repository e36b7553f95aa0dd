// Package diagnostics serves the worker's HTTP endpoints: metrics, version, health,
// readiness and profiles.
package diagnostics

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Options of a Server.
type Options struct {
	Addr    string // host:port; the host may be empty
	Version string
	// Secret, if set, is the bearer token for health, readiness and profiles.
	Secret  string
	Metrics prometheus.Gatherer
	// Healthy returns an error only when the process must be restarted.
	Healthy func() error
	// Ready reports whether all dependencies are available; if not, the text names the
	// one that is not.
	Ready func() (ok bool, reason string)
}

// Server is the running server.
type Server struct {
	http *http.Server
	addr net.Addr
	done sync.WaitGroup
}

// A request is small and comes from a prober, so reading it has a short limit. A profile
// takes up to maxProfile seconds, so writing an answer has a long one.
const (
	readTimeout = 5 * time.Second
	// The longest profile, and the time to send it.
	writeTimeout = maxProfile*time.Second + 15*time.Second
	idleTimeout  = time.Minute
	maxHeader    = 16 << 10
	headerSlack  = 4 << 10 // that net/http adds
	// Probes and scrapers are few; who opens more connections loses the oldest.
	maxConnections = 100
	maxScrapes     = 5 // at a time
)

// Start listens and serves until Close.
func Start(ctx context.Context, opts Options) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("serve the endpoints at %s (PORT or WORKER_DIAGNOSTICS_ADDR): %w", opts.Addr, err)
	}
	s := &Server{
		addr: listener.Addr(),
		http: &http.Server{
			Handler:           Handler(opts),
			ConnContext:       remember,
			ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // it quotes requests
			ReadHeaderTimeout: readTimeout,
			ReadTimeout:       readTimeout,
			WriteTimeout:      writeTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeader - headerSlack,
		},
	}
	s.done.Go(func() { _ = s.http.Serve(newPlaces(listener, maxConnections)) }) // ends with Close
	return s, nil
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.addr.String() }

// Close ends the server and waits for it.
func (s *Server) Close() error {
	err := s.http.Close()
	s.done.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Handler serves the endpoints.
func Handler(opts Options) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(opts.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes}))
	mux.HandleFunc("GET /-/version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, opts.Version) // exactly, since programs compare it
	})

	secret := bearer(opts.Secret)
	mux.Handle("GET /-/healthz", secret(func(w http.ResponseWriter, _ *http.Request) {
		if err := opts.Healthy(); err != nil {
			answer(w, http.StatusInternalServerError, err.Error())
			return
		}
		answer(w, http.StatusOK, "ok")
	}))
	mux.Handle("GET /-/readyz", secret(func(w http.ResponseWriter, _ *http.Request) {
		if ok, reason := opts.Ready(); !ok {
			answer(w, http.StatusInternalServerError, reason)
			return
		}
		answer(w, http.StatusOK, "ok")
	}))

	guard := secret
	if opts.Secret == "" {
		guard = loopbackOnly
	}
	mux.Handle("/debug/pprof/", profiles(guard))
	return keepPlaces(http.MaxBytesHandler(mux, maxHeader))
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text) // the client may be gone
}

// bearer lets a request pass that has the secret, if there is one. It compares in
// constant time.
func bearer(secret string) func(http.HandlerFunc) http.Handler {
	want := sha256.Sum256([]byte(secret))
	return func(next http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if secret != "" {
				token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
				got := sha256.Sum256([]byte(token))
				if subtle.ConstantTimeCompare(got[:], want[:]) != 1 || !ok {
					w.Header().Set("WWW-Authenticate", "Bearer")
					answer(w, http.StatusUnauthorized, "unauthorized")
					return
				}
			}
			next(w, r)
		})
	}
}
