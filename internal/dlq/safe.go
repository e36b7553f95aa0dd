package dlq

import (
	"regexp"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// Hidden stands for what must not be shown.
const Hidden = fault.Hidden

// A form describes the values of a field that are safe to show. Any other value may be
// private, and is hidden.
type form struct {
	text *regexp.Regexp // matches safe strings; nil: no string is safe
	// number says that numbers are safe.
	number bool
}

var (
	// word is a technical name: neither an address nor a sentence.
	word = form{text: regexp.MustCompile(fault.WordPattern)}
	// identifier is a number in hexadecimal digits, or a UUID.
	identifier = form{text: regexp.MustCompile(`^[0-9A-Fa-f-]{1,64}$`)}
	userNumber = form{text: identifier.text, number: true}
	uuidForm   = form{text: regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)}

	moment  = form{text: regexp.MustCompile(`^[0-9TtZz:.+ -]{1,40}$`)}
	country = form{text: regexp.MustCompile(`^[A-Za-z]{2,3}$`)}
	number  = form{number: true}
	private = form{}
)

// maxNumber bounds the numbers that are shown, in bytes.
const maxNumber = 64

// is reports whether a text is of the form.
func (f form) is(text string) bool { return f.text != nil && f.text.MatchString(text) }

// scalar reports whether a JSON value is safe to show. Objects and arrays are safe only if
// they are empty.
func (f form) scalar(value jsontext.Value) bool {
	switch value.Kind() {
	case '"':
		text, err := jsontext.AppendUnquote(nil, value)
		return err == nil && (len(text) == 0 || f.is(string(text)))
	case '0':
		return f.number && len(value) <= maxNumber
	case '{', '[':
		return len(value) == 2 // empty
	case 't', 'f':
		return f.text != nil || f.number
	default: // null
		return true
	}
}

// node describes a known field. Exactly one of its parts is set.
type node struct {
	value  *form
	fields map[string]node // of an object whose fields are known
	// entries is the form of the values of an object whose keys are words.
	entries *form
}

func leaf(f form) node { return node{value: &f} }

func object(fields map[string]node) node { return node{fields: fields} }

func entries(f form) node { return node{entries: &f} }

// safeFields are all fields of an event, with the form of their safe values.
var safeFields = object(map[string]node{
	"feature":         leaf(word),
	"action":          leaf(word),
	"id":              leaf(uuidForm),
	"timestamp":       leaf(moment),
	"metadata":        entries(number),
	"metadataVersion": leaf(number),
	"privateMetadata": leaf(private),
	"billingMetadata": object(map[string]node{"product": leaf(word), "category": leaf(word)}),
	"user": object(map[string]node{
		"samsExternalId": leaf(identifier), "anonymousUserId": leaf(identifier), "userId": leaf(userNumber),
	}),
	"client": object(map[string]node{"name": leaf(word), "version": leaf(word)}),
	"interaction": object(map[string]node{
		"traceId": leaf(identifier), "interactionId": leaf(identifier), "countryCode": leaf(country),
	}),
	"featureFlags": entries(word),
	// A web address may contain text that a person has typed.
	"marketingTracking": object(map[string]node{
		"url": leaf(private), "firstSourceUrl": leaf(private), "cohortId": leaf(word), "referrer": leaf(private),
		"lastSourceUrl": leaf(private), "deviceSessionId": leaf(identifier), "sessionReferrer": leaf(private), "sessionFirstUrl": leaf(private),
	}),
})

// safeAttributes are the attributes that the worker knows.
var safeAttributes = map[string]form{
	event.AttrSchemaVersion:      word,
	event.AttrServiceID:          word,
	event.AttrServiceEnvironment: word,
	event.AttrServiceVersion:     word,
	event.AttrReplayCount:        identifier,
	event.AttrOriginMessageID:    word,
	event.AttrOriginPublishTime:  moment,
	event.AttrOriginRejectedAt:   moment,
	event.AttrReplayID:           word,
	event.AttrTraceparent:        identifier,
	event.AttrGoogleTraceparent:  identifier,
}

// Word returns s if it is empty or safe to show, else Hidden.
func Word(s string) string { return fault.Word(s) }

// SafeDetail returns a detail with its quoted values hidden, unless they are words.
func SafeDetail(detail string) string { return fault.SafeDetail(detail) }
