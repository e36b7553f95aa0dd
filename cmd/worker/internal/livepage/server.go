package livepage

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/localpage"
)

//go:embed page.html page.css page.js
var files embed.FS

var pages = template.Must(template.New("").ParseFS(files, "page.html"))

// policy lets the page load its own script and style, connect to its own server, and
// nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const (
	readTimeout = 5 * time.Second
	// writeTimeout bounds a page, or one part of a stream.
	writeTimeout = 10 * time.Second
	closeTimeout = time.Second
	maxHeader    = 16 << 10
	// maxStreams bounds the open streams. A page without a stream can be reloaded by hand.
	maxStreams = 20
)

// Options of a Server.
type Options struct {
	Feed *Feed
	// Publisher has the variables of a service that publishes here, as NAME=value.
	Publisher []string
	// Sample is a command that publishes an event by hand.
	Sample string
	// Queue is the address of the pages of the dead-letter queue; empty: there are none.
	Queue string
}

// Server serves the page, on a loopback address only.
type Server struct {
	opts    Options
	http    *http.Server
	addr    string
	stop    context.CancelFunc // ends the streams
	served  chan struct{}      // closed when the server has ended
	streams chan struct{}      // has an element for each open stream
}

// Start listens on any free port of 127.0.0.1, and serves until Close.
func Start(ctx context.Context, opts Options) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the page: %w", err)
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Server{
		opts: opts, addr: listener.Addr().String(), stop: stop,
		served: make(chan struct{}), streams: make(chan struct{}, maxStreams),
	}
	s.http = &http.Server{
		Handler:           s.handler(),
		BaseContext:       func(net.Listener) context.Context { return serving },
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // it quotes requests
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		MaxHeaderBytes:    maxHeader,
	}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(listener) // ends with Close
	}()
	return s, nil
}

// URL is the address of the page.
func (s *Server) URL() string { return "http://" + s.addr + "/" }

// Close ends the streams and the server, and waits for both.
func (s *Server) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close() // a client that reads nothing
	}
	<-s.served
	return err
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /live", s.live)
	for name, kind := range map[string]string{"page.css": "text/css", "page.js": "text/javascript"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, _ *http.Request) {
			content, err := files.ReadFile(name)
			if err != nil {
				http.Error(w, "not found", http.StatusNotFound)
				return
			}
			w.Header().Set("Content-Type", kind+"; charset=utf-8")
			_, _ = w.Write(content) // the client may be gone
		})
	}
	return s.guard(mux)
}

// guard sets the headers of every answer. It refuses requests that name another host,
// because a page elsewhere whose name leads to this machine could read the answer.
func (s *Server) guard(next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(s.addr) // an address of a listener
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		localpage.Protect(w.Header(), policy, "no-referrer")
		if r.Host != s.addr && r.Host != net.JoinHostPort("localhost", port) {
			http.Error(w, "this page is served at "+s.URL()+" only", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// pageData is the data of the whole page.
type pageData struct {
	View          view
	Publisher     []string
	Sample, Queue string
	MaxRows       int
}

func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	data := pageData{s.opts.Feed.since(0), s.opts.Publisher, s.opts.Sample, s.opts.Queue, MaxRows}
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, "page", data); err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // the client may be gone
}
