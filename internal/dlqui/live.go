package dlqui

import (
	"bytes"
	"net/http"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/localpage"
)

// fragment is a part of a page that changes while the page is open.
type fragment struct {
	html []byte
	done bool // the part changes no more
}

// fragmentOf makes a part of a page with one of its templates.
func fragmentOf(file, name string, data any, done bool) (fragment, error) {
	var out bytes.Buffer
	err := templates[file].ExecuteTemplate(&out, name, data)
	return fragment{out.Bytes(), done}, err
}

// streams keeps the changing parts of open pages up to date.
type streams struct {
	every time.Duration   // how often a part is made again
	ended <-chan struct{} // closed when the server ends
}

// serve sends a part of a page as a server-sent event whenever it has changed. It returns
// when the part is done, the browser has closed the page, or the server ends.
func (s *streams) serve(w http.ResponseWriter, r *http.Request, next func() (fragment, error)) {
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	ticker := time.NewTicker(s.every)
	defer ticker.Stop()
	var last []byte
	for {
		f, err := next()
		if err != nil {
			return // the browser asks again
		}
		if !bytes.Equal(f.html, last) {
			last = f.html
			if localpage.WriteEvent(w, "part", f.html) != nil {
				return
			}
		}
		if f.done {
			_ = localpage.WriteEvent(w, "done", nil) // the browser may have gone
			_ = out.Flush()
			return
		}
		if out.Flush() != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		case <-s.ended:
			return
		}
	}
}
