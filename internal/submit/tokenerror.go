package submit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/oauth2"
)

// CredentialsError means that SAMS refuses the client or the scope. This is the operator's
// mistake and does not pass by itself.
type CredentialsError struct {
	Status int // of HTTP
	// Code is one of OAuth's error codes, such as invalid_client. It is empty if SAMS gave
	// none, or another text.
	Code string
}

func (e *CredentialsError) Error() string {
	switch e.Code {
	case "invalid_client", "unauthorized_client":
		return fmt.Sprintf("SAMS refuses the client (HTTP %d, %s): check SAMS_CLIENT_ID and SAMS_CLIENT_SECRET", e.Status, e.Code)
	case "invalid_scope":
		return fmt.Sprintf("SAMS refuses the scope %s (HTTP %d, %s): have it granted to the client SAMS_CLIENT_ID", Scope, e.Status, e.Code)
	}
	return fmt.Sprintf("SAMS refuses to give a token (HTTP %d): check SAMS_URL, SAMS_API_URL, SAMS_CLIENT_ID and SAMS_CLIENT_SECRET", e.Status)
}

// oauthCodes are the error codes of RFC 6749, sections 4.1.2.1 and 5.2. Any other text is
// the server's own and must not be shown.
var oauthCodes = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"access_denied", "unsupported_response_type", "server_error", "temporarily_unavailable",
}

func oauthCode(code string) string {
	if slices.Contains(oauthCodes, code) {
		return code
	}
	return ""
}

// tokenError is the error of a fetch that may succeed later. Its text quotes nothing of
// SAMS.
type tokenError struct {
	text       string
	retryAfter time.Duration // that SAMS asked for; 0 if it did not
	err        error
}

func (e *tokenError) Error() string { return "fetch a token from SAMS: " + e.text }
func (e *tokenError) Unwrap() error { return e.err }

// retryAfterOf returns the delay that SAMS asked for; 0 if it did not.
func retryAfterOf(err error) time.Duration {
	if e, ok := errors.AsType[*tokenError](err); ok {
		return e.retryAfter
	}
	return 0
}

// maxRetryAfter bounds the delay that SAMS or the gateway may ask for, because a wrong
// header must not stop the worker for days.
const maxRetryAfter = 5 * time.Minute

// retrieveError translates the error of a fetch. It quotes nothing of the answer's body,
// which may repeat the request with the client's secret.
func retrieveError(err error) error {
	refused, ok := errors.AsType[*oauth2.RetrieveError](err)
	if !ok || refused.Response == nil {
		return &tokenError{text: networkText(err), err: err}
	}
	code := refused.Response.StatusCode
	switch {
	case code/100 == 3:
		return &tokenError{text: fmt.Sprintf("HTTP %d: SAMS redirects, and redirects are not followed, so that the secret goes to the configured address only; set SAMS_URL or SAMS_API_URL to the final address", code)}
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code < 400, code >= 500:
		return &tokenError{text: fmt.Sprintf("HTTP %d", code), retryAfter: retryAfter(refused.Response.Header, time.Now())}
	}
	return &CredentialsError{Status: code, Code: oauthCode(refused.ErrorCode)}
}

// retryAfter reads the header Retry-After: seconds, or a time, which it compares with the
// server's clock if the answer has a Date. The result is between 0, if there is none, and
// maxRetryAfter.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return min(max(0, at.Sub(now)), maxRetryAfter)
}

// networkText says why there is no answer. It shows only those errors of net/http whose
// text is made on this machine, because others quote the server.
func networkText(err error) string {
	if answer, ok := errors.AsType[answerError](err); ok {
		return answer.Error()
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Error()
	}
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return certificate.Error()
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "what answers does not speak TLS"
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return fmt.Sprintf("no answer within %v", fetchTimeout)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %v", fetchTimeout)
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the connection was closed before there was an answer"
	}
	return "what answers, SAMS or a proxy before it, does not speak HTTP as expected"
}
