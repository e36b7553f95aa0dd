package livepage

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/localpage"
)

const (
	// pause is the time between two parts of a stream. Events that arrive in between
	// are sent together.
	pause = 100 * time.Millisecond
	// keepAlive bounds the time between two parts, because only a failed write tells the
	// server that a client is gone.
	keepAlive = 15 * time.Second
)

// live sends server-sent events: a row for each event that arrives, and the counts.
// The client has the events up to the number in its request. After a connection that
// broke, the browser sends the number of the last row that it has received.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	number, err := strconv.ParseUint(cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("after"), "0"), 10, 64)
	if err != nil {
		http.Error(w, "after: expected a number", http.StatusBadRequest)
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	for {
		v := s.opts.Feed.since(number)
		part, err := render(v, number)
		if err != nil {
			return
		}
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return
		}
		if _, err := w.Write(part); err != nil {
			return
		}
		if err := out.Flush(); err != nil {
			return
		}
		number = v.Number
		if !wait(r.Context(), v.changed) {
			return
		}
	}
}

// wait returns at a change, or at keepAlive without one, and in both cases a pause later.
// It returns false when ctx has ended.
func wait(ctx context.Context, changed <-chan struct{}) bool {
	idle := time.NewTimer(keepAlive)
	defer idle.Stop()
	select {
	case <-changed:
	case <-idle.C:
	case <-ctx.Done():
		return false
	}
	rest := time.NewTimer(pause)
	defer rest.Stop()
	select {
	case <-rest.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// render makes a part of a stream for a client that has the events up to the number.
func render(v view, number uint64) ([]byte, error) {
	var b bytes.Buffer
	if number > v.Number {
		// The client has its number from an earlier run of the worker.
		err := localpage.WriteEvent(&b, "reload", nil)
		return b.Bytes(), err
	}
	for _, row := range slices.Backward(v.Rows) {
		fmt.Fprintf(&b, "id: %d\n", row.Number)
		if err := message(&b, "row", row); err != nil {
			return nil, err
		}
	}
	err := message(&b, "counts", v.Counts)
	return b.Bytes(), err
}

// message appends a server-sent event whose data is the template of the same name.
func message(b *bytes.Buffer, name string, data any) error {
	var html bytes.Buffer
	if err := pages.ExecuteTemplate(&html, name, data); err != nil {
		return err
	}
	return localpage.WriteEvent(b, name, html.Bytes())
}
