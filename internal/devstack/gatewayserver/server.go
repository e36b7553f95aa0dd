// Package gatewayserver is an embedded Telemetry Gateway. It enforces the real gateway's
// rules, keeps recorded events, and fails on demand. The real gateway runs on Cloud Run
// behind Google's front end, so this one is behind package googlefront.
package gatewayserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/bundle"
	"github.com/sourcegraph/telemetry-relay/internal/devstack/googlefront"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// Server is a running gateway. Its methods may be called from any goroutine.
type Server struct {
	opts Options
	addr string // the same after every Restart

	onStream  atomic.Pointer[OnStreamFunc]
	onPayload atomic.Pointer[OnPayloadFunc]
	down      atomic.Bool
	lastID    atomic.Int64 // of an RPC
	loss      atomic.Pointer[LoseFunc]
	publisher bundle.Publisher

	ledger ledger

	mu      sync.Mutex         // guards running and closed
	running *googlefront.Front // nil while stopped
	closed  bool
}

// Start listens and serves until Close. ctx bounds the start only.
func Start(ctx context.Context, opts Options) (*Server, error) {
	if opts.Addr == "" {
		opts.Addr = "127.0.0.1:0"
	}
	s := &Server{opts: opts, addr: opts.Addr}
	s.publisher.Lose = s.lose
	if err := s.Restart(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr returns the host:port that the server listens on, also while stopped.
func (s *Server) Addr() string { return s.addr }

// URL returns the address as a URL, to be used as TELEMETRY_GATEWAY_URL.
func (s *Server) URL() string {
	if s.opts.TLS != nil {
		return "https://" + s.addr
	}
	return "http://" + s.addr
}

// Stop closes the listener and cuts all connections, until Restart. It keeps the
// recorded events. It waits for the RPCs to end.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked()
}

func (s *Server) stopLocked() {
	if s.running == nil {
		return
	}
	s.running.Close()
	s.running = nil
}

// Restart listens on the same address again after Stop; it does nothing if the
// server is listening. It retries for as long as ctx lasts, at most 5 s, while
// the address is taken.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("the gateway is closed")
	}
	if s.running != nil {
		return nil
	}
	listener, err := listen(ctx, s.addr)
	if err != nil {
		return fmt.Errorf("listen for the gateway: %w", err)
	}
	s.addr = listener.Addr().String()

	server := grpc.NewServer(grpc.MaxRecvMsgSize(MaxRequestBytes), grpc.WaitForHandlers(true))
	telemetrygatewayv1.RegisterTelemeteryGatewayServiceServer(server, &service{server: s})
	s.running = googlefront.Serve(listener, server, s.opts.TLS)
	return nil
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		var lc net.ListenConfig
		listener, err := lc.Listen(ctx, "tcp", addr)
		if err == nil {
			return listener, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// Close stops the server for good and waits for everything that it started. It
// may be called more than once.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.stopLocked()
	return nil
}
