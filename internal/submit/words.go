package submit

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/secrets"
)

// localError is the error of a stream that could not be opened. Its text was made on this
// machine: the gateway has not seen the stream.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

var (
	// quotes matches the parts of gRPC's texts that quote the server: a page, the reason
	// for the end of a connection, a proxy's answer.
	quotes = regexp.MustCompile(`(?s)[\s,;:]*\b(?:data|debug data|response): ".*`)
	// httpStatus matches gRPC's error for a server that does not speak gRPC.
	httpStatus = regexp.MustCompile(`^unexpected HTTP status code received from server: ([1-5][0-9][0-9])\b`)
)

// maxWords is the length, in bytes, to which the shown text of an error is cut.
const maxWords = 400

// constants are error messages that are constants in the gateway's code, so that they
// cannot quote an event (sourcegraph, cmd/telemetry-gateway).
var constants = map[string]bool{
	"unable to validate token": true, // the gateway cannot reach SAMS
}

// shown returns the text of a stream's error that may be shown. The gateway's own text may
// quote an event, of this stream or of an earlier one. So it is shown only while the
// gateway has not been sent any event, or if it is a constant of its code.
func shown(err error, eventsSent bool, known []string) string {
	s := status.Convert(err)
	code := listedCode(s.Code()).String()
	if _, local := errors.AsType[localError](err); local || !eventsSent || constants[s.Message()] {
		words := strings.TrimPrefix(s.Message(), "rpc error: code = "+code+" desc = ") // gRPC's prefix for wrapped errors
		return clean(code+": "+secrets.Mask(quotes.ReplaceAllString(words, ""), known...)) + hint(s)
	}
	if m := httpStatus.FindStringSubmatch(s.Message()); m != nil {
		code += fmt.Sprintf(" (HTTP %s)", m[1])
	}
	return code + hint(s)
}

// hint explains an HTTP status that redirects.
func hint(s *status.Status) string {
	if m := httpStatus.FindStringSubmatch(s.Message()); m != nil && m[1][0] == '3' {
		return ": redirects are not followed; set TELEMETRY_GATEWAY_URL to the final address"
	}
	return ""
}

// clean turns a text into one printable line of at most maxWords bytes.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + "…"
	}
	return text
}
