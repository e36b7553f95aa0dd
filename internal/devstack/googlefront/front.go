// Package googlefront serves a gRPC server behind a front end like Google's, so that a
// client that passes these tests also works with the service.
//
// The front takes requests whose content type is exactly "application/grpc". It
// answers any other content type, such as "application/grpc+proto", with HTTP 404
// and an HTML page, which grpc-go reports as Unimplemented. That is what clients
// of *.googleapis.com report (googleapis/googleapis.github.io#27, tsloughter/grpcbox#60,
// akka/alpakka#2237), although the gRPC specification allows the suffix.
//
// Every answer has the header "date", as answers of Google's front ends do.
//
// A connection carries at most 100 concurrent RPCs, as there
// (googleapis/nodejs-pubsub#1135).
package googlefront

import (
	"crypto/tls"
	"fmt"
	"html"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
)

const (
	// ContentType is the one content type that the front passes on.
	ContentType = "application/grpc"
	// MaxConcurrentStreams is the number of RPCs that may be open on one connection.
	// Clients wait for an RPC to end before they begin another.
	MaxConcurrentStreams = 100
)

// Front is a running front. Its methods may be called from any goroutine.
type Front struct {
	grpc        *grpc.Server
	http        *http.Server
	connections *connections
	refusals    atomic.Int64 // the number of requests to refuse; negative: all

	accepting sync.WaitGroup // the accept loop
	serving   sync.WaitGroup // the goroutines of the connections
	closing   sync.Once
}

// Serve serves server on listener until Close. With a TLS configuration the front
// speaks TLS only, without one plain text only. The server must not be served
// elsewhere, and should wait for its handlers when it stops
// (grpc.WaitForHandlers), so that Close does.
func Serve(listener net.Listener, server *grpc.Server, tlsConfig *tls.Config) *Front {
	f := &Front{grpc: server, connections: newConnections(listener)}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true) // for the refusal of what is no gRPC at all
	protocols.SetHTTP2(tlsConfig != nil)
	protocols.SetUnencryptedHTTP2(tlsConfig == nil)
	f.http = &http.Server{ //nolint:gosec // no timeouts: streams are open for hours, and clients are our own
		Handler:   http.HandlerFunc(f.serve),
		Protocols: protocols,
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: MaxConcurrentStreams},
		TLSConfig: tlsConfig,
		ConnState: f.count,
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // connections that are cut are no news
	}
	f.accepting.Go(func() {
		// Only Close ends the loop, and it needs no error from it.
		if tlsConfig != nil {
			_ = f.http.ServeTLS(f.connections, "", "")
		} else {
			_ = f.http.Serve(f.connections)
		}
	})
	return f
}

// Close cuts all connections, cancels the handlers, and waits for everything that
// Serve began. It may be called more than once.
func (f *Front) Close() {
	f.closing.Do(func() {
		_ = f.http.Close() // what it reports is that a connection was closed already
		f.accepting.Wait()
		f.connections.close() // one may have been accepted meanwhile
		f.grpc.Stop()
	})
	f.serving.Wait()
}

// Refuse makes the front answer the next n requests with HTTP 404 whatever their
// content type, as a proxy between client and service does now and then; n < 0
// means all of them, until Refuse is called again.
func (f *Front) Refuse(n int) { f.refusals.Store(int64(n)) }

// Peers returns the clients' sides, host:port, of the open connections, in the order in
// which they were opened.
func (f *Front) Peers() []string { return f.connections.peers() }

// Freeze makes the connection of a peer go dead: from now on the front drops what
// arrives and sends nothing, and neither side sees an end. It reports whether the peer
// is connected. Close ends frozen connections, too.
func (f *Front) Freeze(peer string) bool { return f.connections.freeze(peer) }

func (f *Front) serve(w http.ResponseWriter, r *http.Request) {
	if f.refuses() || r.Header.Get("Content-Type") != ContentType {
		notFound(w, r)
		return
	}
	f.grpc.ServeHTTP(&dated{ResponseWriter: w}, r)
}

// refuses takes one from the refusals.
func (f *Front) refuses() bool {
	for {
		n := f.refusals.Load()
		if n <= 0 {
			return n < 0
		}
		if f.refusals.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

func notFound(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.WriteHeader(http.StatusNotFound)
	_, _ = fmt.Fprintf(w, "<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)</title>"+
		"<p>The requested URL <code>%s</code> was not found on this server.</html>\n", html.EscapeString(r.URL.Path))
}

// count follows the connections' goroutines. Each passes the state new, before it
// begins, and in the end closed or, for HTTP/1 only, hijacked.
func (f *Front) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		f.serving.Add(1)
	case http.StateClosed, http.StateHijacked:
		f.serving.Done()
	case http.StateActive, http.StateIdle:
	}
}
