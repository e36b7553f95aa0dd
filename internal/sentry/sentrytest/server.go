// Package sentrytest is a fake Sentry on loopback, for tests.
package sentrytest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Key is the public key of the DSN.
const Key = "c0ffee"

// Server takes what is reported. It is safe for concurrent use.
type Server struct {
	DSN string

	mu     sync.Mutex
	items  []Item
	bodies [][]byte
}

// Item is one thing that was reported.
type Item struct {
	Type string // event, check_in, …
	Body map[string]any
}

// Start starts a server that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{}
	server := httptest.NewServer(http.HandlerFunc(s.take))
	t.Cleanup(server.Close)
	s.DSN = strings.Replace(server.URL, "http://", "http://"+Key+"@", 1) + "/42"
	return s
}

// take reads an envelope: a line about it, then for each item a line about the
// item and its payload.
func (s *Server) take(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.URL.Path != "/api/42/envelope/" || !strings.Contains(r.Header.Get("X-Sentry-Auth"), "sentry_key="+Key) {
		http.Error(w, fmt.Sprintf("%s: %v", r.URL.Path, err), http.StatusForbidden)
		return
	}
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(nil, len(body)+1)
	lines.Scan() // about the envelope
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies = append(s.bodies, body)
	for lines.Scan() {
		var head struct {
			Type string `json:"type"`
		}
		if len(lines.Bytes()) == 0 || json.Unmarshal(lines.Bytes(), &head) != nil || !lines.Scan() {
			continue
		}
		item := Item{Type: head.Type}
		if json.Unmarshal(lines.Bytes(), &item.Body) == nil {
			s.items = append(s.items, item)
		}
	}
	_, _ = io.WriteString(w, "{}")
}

// Items are the items of a type so far.
func (s *Server) Items(kind string) (all []map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.items {
		if i.Type == kind {
			all = append(all, i.Body)
		}
	}
	return all
}

// Bodies are the requests as they were received.
func (s *Server) Bodies() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.bodies)
}
