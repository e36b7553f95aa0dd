package googlefront

import (
	"net/http"
	"time"
)

// dated is a response that has a Date, as every answer of Google's front ends has.
// net/http would add it, but grpc-go's handler takes it out. A date that the handler
// sets itself stays. As any ResponseWriter it is used by one goroutine at a time.
type dated struct {
	http.ResponseWriter
	begun bool // the header is written
}

func (d *dated) begin() {
	if d.begun {
		return
	}
	d.begun = true
	if h := d.Header(); len(h["Date"]) == 0 {
		h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
}

// WriteHeader writes the header.
func (d *dated) WriteHeader(status int) {
	d.begin()
	d.ResponseWriter.WriteHeader(status)
}

// Write writes the header, if it is not written yet, and then b.
func (d *dated) Write(b []byte) (int, error) {
	d.begin()
	return d.ResponseWriter.Write(b)
}

// Flush sends what is written. gRPC asks for it by this method.
func (d *dated) Flush() {
	d.begin()
	d.ResponseWriter.(http.Flusher).Flush()
}
