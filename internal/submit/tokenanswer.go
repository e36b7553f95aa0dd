package submit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
)

// tokenAnswers is the transport below golang.org/x/oauth2. It reads an answer with a token
// strictly and hands it on in a plain form, because the library quotes parts of an answer
// that it cannot read, refuses a lifetime such as 3600.0, and accepts any bytes as a token.
type tokenAnswers struct {
	next http.RoundTripper
}

// answerError says what is wrong with an answer of SAMS, without a quotation from it.
type answerError string

func (e answerError) Error() string { return string(e) }

const (
	errNoJSON     answerError = "the answer is not a JSON object"
	errNoToken    answerError = "the answer has no access_token"
	errTokenBytes answerError = "the access_token has characters that no HTTP header can have"
	errTokenSize  answerError = "the access_token is longer than an HTTP header may be"
	errTokenType  answerError = "the token_type is not Bearer"
	errLifetime   answerError = "expires_in is not a number of seconds"
)

const (
	// maxAnswer is how many bytes of an answer are read.
	maxAnswer = 64 << 10
	// maxToken is the longest access token, in bytes. All servers accept headers of 8 KiB,
	// and few accept longer ones.
	maxToken = 8000
)

// tokenAnswer is a successful answer (RFC 6749, section 5.1), or one with an error
// (section 5.2) that came with a status of success.
type tokenAnswer struct {
	AccessToken string          `json:"access_token,omitempty"`
	TokenType   string          `json:"token_type,omitempty"`
	ExpiresIn   json.RawMessage `json:"expires_in,omitempty"`
	Scope       string          `json:"scope,omitempty"`
	Error       string          `json:"error,omitempty"`
}

// RoundTrip fails if a successful answer cannot be used.
func (t tokenAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil || resp.StatusCode/100 != 2 {
		return resp, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	answer, err := readTokenAnswer(body)
	if err != nil {
		return nil, err
	}
	body, err = json.Marshal(answer) //nolint:gosec // For the library above, and nobody else.
	if err != nil {
		return nil, fmt.Errorf("encode the token: %w", err)
	}
	resp.Header.Set("Content-Type", "application/json")
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}

// CloseIdleConnections implements the method that http.Client looks for.
func (t tokenAnswers) CloseIdleConnections() {
	if c, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func readTokenAnswer(body []byte) (a tokenAnswer, err error) {
	if err := json.Unmarshal(body, &a); err != nil {
		return a, errNoJSON
	}
	if a.Error != "" {
		return tokenAnswer{Error: a.Error}, nil
	}
	switch {
	case a.AccessToken == "":
		return a, errNoToken
	case len(a.AccessToken) > maxToken:
		return a, errTokenSize
	case strings.ContainsFunc(a.AccessToken, func(r rune) bool { return r <= ' ' || r > '~' }):
		return a, errTokenBytes
	case a.TokenType != "" && !strings.EqualFold(a.TokenType, "Bearer"):
		return a, errTokenType
	}
	a.ExpiresIn, err = readLifetime(a.ExpiresIn)
	return a, err
}

// readLifetime returns the seconds as a whole number, because some servers write them as a
// string or with a fraction. It returns nil if SAMS does not say.
func readLifetime(raw json.RawMessage) (json.RawMessage, error) {
	text := strings.Trim(string(raw), `"`)
	if text == "" || text == "null" {
		return nil, nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(seconds) || seconds < 0 {
		return nil, errLifetime
	}
	return strconv.AppendInt(nil, int64(min(math.Ceil(seconds), math.MaxInt32)), 10), nil
}
