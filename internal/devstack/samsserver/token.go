package samsserver

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxFormBytes bounds the body of a token request.
const maxFormBytes = 64 << 10

// grant has the client and the scopes of an access token.
type grant struct {
	scopes   []string
	clientID string
	expires  time.Time
}

// tokenStore holds the tokens that have neither expired nor been revoked.
type tokenStore struct {
	mu     sync.Mutex
	active map[string]grant // by token
}

func (t *tokenStore) add(token string, g grant) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for old, g := range t.active {
		if !now.Before(g.expires) {
			delete(t.active, old)
		}
	}
	t.active[token] = g
}

// Introspect says whether token is active and, if so, what it grants to whom.
func (s *Server) Introspect(token string) (active bool, scopes []string, clientID string) {
	s.introspections.Add(1)
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	g, ok := s.tokens.active[token]
	if !ok || !time.Now().Before(g.expires) {
		return false, nil, ""
	}
	return true, slices.Clone(g.scopes), g.clientID
}

// Revoke makes a token inactive at once, without a notice to clients.
func (s *Server) Revoke(token string) {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	delete(s.tokens.active, token)
}

// RevokeAll makes every token inactive, as a restart of SAMS may.
func (s *Server) RevokeAll() {
	s.tokens.mu.Lock()
	defer s.tokens.mu.Unlock()
	clear(s.tokens.active)
}

// IssueToken returns a new token without HTTP, for tests that need nothing else
// of SAMS. The scopes are not checked.
func (s *Server) IssueToken(scopes ...string) string {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // never fails
	token := "sams_at_" + base64.RawURLEncoding.EncodeToString(raw)
	s.tokens.add(token, grant{
		scopes:   slices.Clone(scopes),
		clientID: s.opts.ClientID,
		expires:  time.Now().Add(s.opts.TokenTTL),
	})
	s.tokensIssued.Add(1)
	return token
}

func (s *Server) handleToken(w http.ResponseWriter, r *http.Request) {
	s.tokenRequests.Add(1)
	if s.injectFault(w, r) {
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
	if err := r.ParseForm(); err != nil {
		writeError(w, http.StatusBadRequest, "invalid_request", "the body is not a form")
		return
	}
	if !s.authenticated(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="SAMS"`)
		writeError(w, http.StatusUnauthorized, "invalid_client", "unknown client or wrong secret")
		return
	}
	if r.PostForm.Get("grant_type") != "client_credentials" {
		writeError(w, http.StatusBadRequest, "unsupported_grant_type", "only client_credentials is supported")
		return
	}
	scopes := strings.Fields(r.PostForm.Get("scope"))
	for _, scope := range scopes {
		if !slices.Contains(s.opts.Scopes, scope) {
			writeError(w, http.StatusBadRequest, "invalid_scope", "the client may not have "+scope)
			return
		}
	}
	ttl := (s.opts.TokenTTL + time.Second - 1) / time.Second
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": s.IssueToken(scopes...),
		"token_type":   "Bearer",
		"expires_in":   int64(ttl),
		"scope":        strings.Join(scopes, " "),
	})
}

// authenticated accepts HTTP Basic (whose parts OAuth 2 wants form-encoded) and
// form parameters.
func (s *Server) authenticated(r *http.Request) bool {
	id, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
	if user, password, ok := r.BasicAuth(); ok {
		var errID, errSecret error
		id, errID = url.QueryUnescape(user)
		secret, errSecret = url.QueryUnescape(password)
		if errID != nil || errSecret != nil {
			return false
		}
	}
	idOK := subtle.ConstantTimeCompare([]byte(id), []byte(s.opts.ClientID))
	secretOK := subtle.ConstantTimeCompare([]byte(secret), []byte(s.opts.ClientSecret))
	return idOK&secretOK == 1
}

func writeError(w http.ResponseWriter, code int, name, description string) {
	writeJSON(w, code, map[string]string{"error": name, "error_description": description})
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
