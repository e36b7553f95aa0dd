// Package samsserver is an embedded SAMS, Sourcegraph's OAuth 2 provider. It issues opaque
// access tokens for the client_credentials grant and introspects them in-process.
package samsserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server is a running SAMS. Its methods may be called from any goroutine.
type Server struct {
	opts Options
	addr string
	http *http.Server

	fault  atomic.Pointer[FaultFunc]
	tokens tokenStore

	tokenRequests, tokensIssued, introspections atomic.Int64

	// stopping is cancelled by Close and ends delayed handlers.
	stopping context.Context
	stop     context.CancelFunc
	served   chan struct{} // closed when the accept loop has returned

	mu       sync.Mutex // guards closed, and handlers.Add against Close's Wait
	closed   bool
	handlers sync.WaitGroup // requests being handled
	close    sync.Once
}

// Start listens and serves until Close. ctx bounds the start only.
func Start(ctx context.Context, opts Options) (*Server, error) {
	opts = opts.withDefaults()
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", opts.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for SAMS: %w", err)
	}
	stopping, stop := context.WithCancel(context.Background())
	s := &Server{
		opts:     opts,
		addr:     listener.Addr().String(),
		tokens:   tokenStore{active: map[string]grant{}},
		stopping: stopping,
		stop:     stop,
		served:   make(chan struct{}),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/oauth/token", s.handleToken)
	s.http = &http.Server{Handler: s.track(mux), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.served)
		// Only Close ends the loop, and it needs no error from it.
		_ = s.http.Serve(listener)
	}()
	return s, nil
}

// Addr returns the host:port that the server listens on.
func (s *Server) Addr() string { return s.addr }

// URL returns the base URL, to be used as SAMS_URL.
func (s *Server) URL() string { return "http://" + s.addr }

// ClientID returns the id of the client that may get tokens.
func (s *Server) ClientID() string { return s.opts.ClientID }

// ClientSecret returns the secret that goes with ClientID.
func (s *Server) ClientSecret() string { return s.opts.ClientSecret }

// SetFault installs f for all further requests; nil removes it.
func (s *Server) SetFault(f FaultFunc) {
	if f == nil {
		s.fault.Store(nil)
		return
	}
	s.fault.Store(&f)
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{
		TokenRequests:  int(s.tokenRequests.Load()),
		TokensIssued:   int(s.tokensIssued.Load()),
		Introspections: int(s.introspections.Load()),
	}
}

// Close drops all connections and waits for everything that Start began. It may
// be called more than once.
func (s *Server) Close() error {
	var err error
	s.close.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.stop()
		err = s.http.Close()
	})
	s.handlers.Wait()
	<-s.served
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// track makes handlers something that Close can wait for, which http.Server's
// own Close does not.
func (s *Server) track(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			http.Error(w, "closing", http.StatusServiceUnavailable)
			return
		}
		s.handlers.Add(1)
		s.mu.Unlock()
		defer s.handlers.Done()
		next.ServeHTTP(w, r)
	})
}

// injectFault reports whether the request was answered by the fault hook.
func (s *Server) injectFault(w http.ResponseWriter, r *http.Request) bool {
	f := s.fault.Load()
	if f == nil {
		return false
	}
	code, body, delay, ok := (*f)(r)
	if !ok {
		return false
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return true
		case <-s.stopping.Done():
			return true
		}
	}
	if code == 0 {
		return false
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(body)) // the client may be gone
	return true
}
