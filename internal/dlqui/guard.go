package dlqui

import (
	"crypto/rand"
	"crypto/subtle"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/sourcegraph/telemetry-relay/internal/localpage"
)

// maxForm bounds the body of a request, in bytes.
const maxForm = 1 << 20

// startPath is the path of the printed address.
const startPath = "/start"

// policy lets the pages load nothing from elsewhere and run no script of a publisher.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// guard admits the browser of the person who started the command. Other users of the
// machine can connect to the port, and web pages elsewhere can send requests to it.
type guard struct {
	host   string
	cookie string // its name has the port, because browsers send a cookie to all ports of a host

	mu    sync.Mutex
	token string // of the printed address; redeem empties it

	session, csrf string
}

func newGuard(host string) *guard {
	_, port, _ := net.SplitHostPort(host)
	return &guard{host: host, cookie: "dlq_ui_" + port, token: rand.Text(), session: rand.Text(), csrf: rand.Text()}
}

// address returns the address to open, which works once.
func (g *guard) address() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return "http://" + g.host + startPath + "?token=" + g.token
}

// redeem reports whether the token is right. It accepts the right token once.
func (g *guard) redeem(token string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.token == "" || !same(token, g.token) {
		return false
	}
	g.token = ""
	return true
}

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// refusal says why a request is not served.
type refusal struct {
	status int
	why    string
}

// check returns the refusal of a request, or nil.
func (g *guard) check(r *http.Request) *refusal {
	if r.Host != g.host {
		return &refusal{http.StatusMisdirectedRequest, "This address is not served here: expected http://" + g.host + "/."}
	}
	if strings.HasPrefix(r.URL.Path, "/static/") || r.URL.Path == startPath {
		return nil
	}
	if !g.knows(r) {
		return &refusal{http.StatusForbidden, "This browser was not admitted. Open the address that `worker dlq ui` printed; it works once. If it was used already, end the command and start it again."}
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return nil
	case http.MethodPost:
		return g.checkForm(r)
	}
	return &refusal{http.StatusMethodNotAllowed, "Expected GET or POST."}
}

// knows reports whether the request is of a browser that was admitted.
func (g *guard) knows(r *http.Request) bool {
	c, err := r.Cookie(g.cookie)
	return err == nil && same(c.Value, g.session)
}

// checkForm returns the refusal of a form, or nil.
func (g *guard) checkForm(r *http.Request) *refusal {
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+g.host {
		return &refusal{http.StatusForbidden, "The request came from another page. Nothing was changed."}
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return &refusal{http.StatusForbidden, "The request came from another page. Nothing was changed."}
	}
	if err := r.ParseForm(); err != nil {
		return &refusal{http.StatusBadRequest, "The form cannot be read, or is larger than 1 MiB. Nothing was changed."}
	}
	if !same(r.PostForm.Get("csrf"), g.csrf) {
		return &refusal{http.StatusForbidden, "The form is not of this page, or of an earlier run of the command. Load the page again. Nothing was changed."}
	}
	return nil
}

// wrap serves the requests that check admits, and refuses the others.
func (g *guard) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		localpage.Protect(w.Header(), policy, "same-origin") // with no-referrer the Origin of a form is null
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if refused := g.check(r); refused != nil {
			refuse(w, refused.status, refused.why)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// admit turns the token of the printed address into a cookie. The caller must answer with
// a page, and not with a redirect: after a redirect from a page elsewhere, such as a chat,
// the browser would not send the cookie.
func (g *guard) admit(w http.ResponseWriter, r *http.Request) bool {
	if g.knows(r) {
		return true // a link to the printed address
	}
	if !g.redeem(r.URL.Query().Get("token")) {
		return false
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // there is no TLS on loopback, so that Secure would lose it
		Name: g.cookie, Value: g.session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
	return true
}

func (g *guard) register(mux *http.ServeMux) { mux.HandleFunc("GET "+startPath, g.start) }

// start admits the browser that has the token of the printed address.
func (g *guard) start(w http.ResponseWriter, r *http.Request) {
	if !g.admit(w, r) {
		refuse(w, http.StatusForbidden, "This address was used already, or was copied incompletely: it works once. End the command and start it again for a new one.")
		return
	}
	render(w, http.StatusOK, "start.html", &page{Title: "Dead-letter queue", GoTo: "/"})
}
