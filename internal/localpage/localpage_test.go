package localpage

import (
	"net/http"
	"strings"
	"testing"
)

func TestEventHasEachLineOfItsData(t *testing.T) {
	for data, want := range map[string]string{
		"":              "event: part\ndata: \n\n",
		"<p>":           "event: part\ndata: <p>\n\n",
		"<p>\n":         "event: part\ndata: <p>\n\n",
		"<p>\r\n\n</p>": "event: part\ndata: <p>\ndata: \ndata: </p>\n\n",
	} {
		var b strings.Builder
		if err := WriteEvent(&b, "part", []byte(data)); err != nil || b.String() != want {
			t.Errorf("%q: %q, %v; want %q", data, b.String(), err, want)
		}
	}
}

func TestProtectSetsEachHeader(t *testing.T) {
	h := http.Header{}
	Protect(h, "default-src 'none'", "no-referrer")
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}
