package dlqui

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// refusedRequest is a request that a server must refuse without a change.
type refusedRequest struct {
	name           string
	method, target string
	form           url.Values
	headers        []string
	cookie         *http.Cookie
	status         int
	why            string
}

// change returns a form that changes the plan, with other values of one of its fields.
// Without a value the form has no such field.
func (b *browser) change(name string, value ...string) url.Values {
	form := url.Values{"csrf": {b.server.guard.csrf}, "fault": {faultID(userDetail)}, "action": {"replay"}}
	if name != "" {
		form[name] = value
	}
	return form
}

// refuses fails unless the server refuses each request, says why, and changes nothing.
func (b *browser) refuses(requests []refusedRequest) {
	b.t.Helper()
	t := b.t
	for _, c := range requests {
		t.Run(c.name, func(t *testing.T) {
			b.t, b.cookie = t, c.cookie
			w := b.do(c.method, c.target, c.form, c.headers...)
			if w.Code != c.status {
				t.Errorf("status %d, want %d", w.Code, c.status)
			}
			b.want(w.Body.String(), c.why)
			if got := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(got, "default-src 'none'") {
				t.Errorf("policy %q", got)
			}
			if b.server.layout.draft.size() > 0 || len(b.queue.commands()) > 0 {
				t.Error("something was changed")
			}
		})
	}
}

// TestForeignRequestsChangeNothing: the server refuses each request that is not the
// person's own, and says why.
func TestForeignRequestsChangeNothing(t *testing.T) {
	b := open(t, &fakeQueue{messages: queueOf(3, userDetail)})
	good, admitted := b.change(""), b.cookie
	b.refuses([]refusedRequest{
		{"no cookie", "GET", "/", nil, nil, nil, 403, "was not admitted"},
		{"another cookie", "GET", "/", nil, nil, &http.Cookie{Name: admitted.Name, Value: "x"}, 403, "was not admitted"},
		{"no cookie, a form", "POST", "/plan", good, nil, nil, 403, "was not admitted"},
		{"the token again", "GET", startPath + "?token=x", nil, nil, nil, 403, "works once"},
		{"no token", "GET", startPath, nil, nil, nil, 403, "works once"},
		{"no CSRF token", "POST", "/plan", b.change("csrf"), nil, admitted, 403, "not of this page"},
		{"another CSRF token", "POST", "/plan", b.change("csrf", "x"), nil, admitted, 403, "not of this page"},
		{"another origin", "POST", "/plan", good, []string{"Origin", "https://evil.example"}, admitted, 403, "from another page"},
		{"another port", "POST", "/plan", good, []string{"Origin", "http://127.0.0.1:9"}, admitted, 403, "from another page"},
		{"a null origin", "POST", "/plan", good, []string{"Origin", "null"}, admitted, 403, "from another page"},
		{"another site", "POST", "/plan", good, []string{"Sec-Fetch-Site", "cross-site"}, admitted, 403, "from another page"},
		{"the same site, another port", "POST", "/plan", good, []string{"Sec-Fetch-Site", "same-site"}, admitted, 403, "from another page"},
		{"a large form", "POST", "/plan", b.change("jq", strings.Repeat("x", 2<<20)), nil, admitted, 400, "larger than 1 MiB"},
		{"another method", "DELETE", "/", nil, nil, admitted, 405, "Expected GET or POST"},
	})
}

// TestWrongRequestsChangeNothing: a request of the person names nothing that there is, or
// asks for nothing that can be done.
func TestWrongRequestsChangeNothing(t *testing.T) {
	b := open(t, &fakeQueue{messages: queueOf(3, userDetail)})
	good, admitted := b.change(""), b.cookie
	b.refuses([]refusedRequest{
		{"a change by GET", "GET", "/read", nil, nil, admitted, 404, "no such page"},
		{"no such page", "GET", "/x", nil, nil, admitted, 404, "no such page"},
		{"no such fault", "GET", "/faults/F-000000", nil, nil, admitted, 404, "No message that was read"},
		{"no such event", "GET", "/events/x", nil, nil, admitted, 404, "No message that was read"},
		{"no such operation", "GET", "/operations/20261127T050000Z-abcdef", nil, nil, admitted, 404, "no such operation"},
		{"an operation outside the folder", "GET", "/operations/..%2f..%2fetc%2fpasswd", nil, nil, admitted, 404, "no such operation"},
		{"no such action", "POST", "/plan", b.change("action", "explode"), nil, admitted, 400, "expected replay, purge, keep or jq"},
		{"no such expression", "POST", "/plan", url.Values{"csrf": good["csrf"], "fault": good["fault"], "action": {"jq"}, "jq": {".["}}, nil, admitted, 400, "expected a jq expression"},
		{"no fault", "POST", "/plan", b.change("fault", "x"), nil, admitted, 400, "Expected the id of a fault"},
		{"an empty plan", "POST", "/plan/make", good, nil, admitted, 400, "The plan is empty"},
	})
}

// TestOtherNamesOfTheHostAreRefused: a name elsewhere may lead to this machine.
func TestOtherNamesOfTheHostAreRefused(t *testing.T) {
	b := open(t, &fakeQueue{})
	for host, status := range map[string]int{testHost: 200, "evil.example:8080": 421, "localhost:8080": 421, "127.0.0.1": 421, "127.0.0.1:9": 421} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		r.AddCookie(b.cookie)
		w := recorder()
		b.server.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%s: %d, want %d", host, w.Code, status)
		}
	}
}

func TestPrintedAddressAdmitsOneBrowser(t *testing.T) {
	b := open(t, &fakeQueue{})
	again := b.server.Address()
	again = again[strings.Index(again, startPath):]
	b.want(b.get(again), "This browser is admitted")
	b.cookie = nil
	if w := b.do(http.MethodGet, again, nil); w.Code != http.StatusForbidden || len(w.Result().Cookies()) > 0 {
		t.Errorf("another browser: %d", w.Code)
	}
}

// TestCookieIsOfThePagesAlone: a script cannot read the cookie, and no other site can use
// it.
func TestCookieIsOfThePagesAlone(t *testing.T) {
	b := open(t, &fakeQueue{})
	if c := b.cookie; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Name != "dlq_ui_8080" || len(c.Value) < 20 {
		t.Errorf("%+v", c)
	}
}
