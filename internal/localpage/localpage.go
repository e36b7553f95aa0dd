// Package localpage has the headers and the server-sent events of the pages that a command
// serves to this machine only.
package localpage

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// Protect sets the headers that keep other pages and caches from an answer. policy is the
// Content-Security-Policy, referrer the Referrer-Policy.
func Protect(h http.Header, policy, referrer string) {
	h.Set("Content-Security-Policy", policy)
	h.Set("Referrer-Policy", referrer)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// WriteEvent writes a server-sent event. It writes empty data as one empty line, because
// browsers ignore an event without a line of data.
func WriteEvent(w io.Writer, name string, data []byte) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "event: %s\n", name)
	if len(data) == 0 {
		b.WriteString("data: \n")
	}
	for line := range bytes.Lines(data) {
		fmt.Fprintf(&b, "data: %s\n", bytes.TrimRight(line, "\r\n"))
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}
