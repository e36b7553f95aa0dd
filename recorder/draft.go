package recorder

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/sourcegraph/telemetry-relay/internal/policy"
)

// draft is an event that is being encoded as JSON.
type draft struct {
	Event
	own   ownMaps
	hasID bool // set even for an empty id, which is a fault

	// buf is the JSON so far, wire is scratch memory for the decoder, and keys are those of
	// the map that is being encoded.
	buf, wire []byte
	keys      []string
	// fault is the first value that JSON cannot represent.
	fault string
	// stripped is why the private metadata is left out; empty if it is not.
	stripped string
}

var drafts = sync.Pool{New: func() any { return new(draft) }}

// maxKept is the largest buffer that is kept for the next event, in bytes.
const maxKept = 64 << 10

// release returns the draft to the pool without references to its event.
func (d *draft) release() {
	*d = draft{buf: keep(d.buf), wire: keep(d.wire), keys: keep(d.keys)}
	drafts.Put(d)
}

func keep[T any](s []T) []T {
	if cap(s) > maxKept {
		return nil
	}
	return s[:0]
}

// encode encodes the event. If private metadata cannot be encoded, it is left out, which
// the metadata then say. Any other such value is a fault.
func (d *draft) encode(ctx context.Context) {
	d.buf = append(d.buf, `{"feature":`...)
	d.text(string(d.Feature))
	d.buf = append(d.buf, `,"action":`...)
	d.text(string(d.Action))
	d.buf = append(d.buf, `,"id":`...)
	if d.hasID || d.ID != "" {
		d.text(string(d.ID))
	} else {
		d.newID()
	}
	at := d.Timestamp
	if at.IsZero() {
		at = time.Now()
	}
	d.buf = append(d.buf, `,"timestamp":"`...)
	d.buf = at.UTC().AppendFormat(d.buf, time.RFC3339Nano)
	d.buf = append(d.buf, '"')
	if d.PrivateMetadata != nil && d.stripped == "" {
		d.privateValues()
	}
	if d.Metadata != nil || d.stripped != "" {
		d.numbers()
	}
	if d.MetadataVersion != 0 {
		d.buf = append(d.buf, `,"metadataVersion":`...)
		d.buf = strconv.AppendInt(d.buf, int64(d.MetadataVersion), 10)
	}
	d.parts(ctx)
	d.buf = append(d.buf, '}')
}

// parts encodes the objects whose fields are all known.
func (d *draft) parts(ctx context.Context) {
	d.object("billingMetadata",
		part{"product", d.Billing.Product},
		part{"category", d.Billing.Category})
	if u := d.User; u.UserID == 0 {
		d.object("user", part{"samsExternalId", u.SAMSExternalID}, part{"anonymousUserId", u.AnonymousUserID})
	} else {
		d.buf = append(d.buf, `,"user":{"userId":`...)
		d.buf = strconv.AppendInt(d.buf, u.UserID, 10)
		d.fields(false, part{"samsExternalId", u.SAMSExternalID}, part{"anonymousUserId", u.AnonymousUserID})
		d.buf = append(d.buf, '}')
	}
	d.object("client", part{"name", d.Client.Name}, part{"version", d.Client.Version})
	d.interactionOf(ctx)
	if d.FeatureFlags != nil {
		d.strings()
	}
	m := &d.Marketing
	d.object("marketingTracking",
		part{"url", m.URL}, part{"firstSourceUrl", m.FirstSourceURL}, part{"cohortId", m.CohortID},
		part{"referrer", m.Referrer}, part{"lastSourceUrl", m.LastSourceURL}, part{"deviceSessionId", m.DeviceSessionID},
		part{"sessionReferrer", m.SessionReferrer}, part{"sessionFirstUrl", m.SessionFirstURL})
}

// interactionOf encodes the interaction. If it has no trace id, it gets that of the
// context.
func (d *draft) interactionOf(ctx context.Context) {
	i := &d.Interaction
	more := []part{{"interactionId", i.InteractionID}, {"countryCode", i.CountryCode}}
	id := trace.SpanContextFromContext(ctx).TraceID()
	if i.TraceID != "" || !id.IsValid() {
		d.object("interaction", append([]part{{"traceId", i.TraceID}}, more...)...)
		return
	}
	d.buf = append(d.buf, `,"interaction":{"traceId":"`...)
	d.buf = append(hex.AppendEncode(d.buf, id[:]), '"')
	d.fields(false, more...)
	d.buf = append(d.buf, '}')
}

// part is a field of an object. It is left out if it is empty.
type part struct{ name, value string }

// object encodes an object. An object without fields is left out.
func (d *draft) object(name string, parts ...part) {
	start := len(d.buf)
	d.open(name)
	if first := d.fields(true, parts...); first {
		d.buf = d.buf[:start]
		return
	}
	d.buf = append(d.buf, '}')
}

func (d *draft) fields(first bool, parts ...part) bool {
	for _, p := range parts {
		if p.value == "" {
			continue
		}
		if !first {
			d.buf = append(d.buf, ',')
		}
		first = false
		d.buf = append(d.buf, '"')
		d.buf = append(d.buf, p.name...)
		d.buf = append(d.buf, `":`...)
		d.text(p.value)
	}
	return first
}

func (d *draft) open(name string) {
	d.buf = append(d.buf, `,"`...)
	d.buf = append(d.buf, name...)
	d.buf = append(d.buf, `":{`...)
}

// member begins a member of the map that was opened last.
func (d *draft) member(first bool, key string) {
	if !first {
		d.buf = append(d.buf, ',')
	}
	d.text(key)
	d.buf = append(d.buf, ':')
}

// sorted returns the sorted keys of a map, so that equal events have equal JSON.
func sorted[K ~string, V any](d *draft, m map[K]V) []string {
	d.keys = d.keys[:0]
	for key := range m {
		d.keys = append(d.keys, string(key))
	}
	slices.Sort(d.keys)
	return d.keys
}

func (d *draft) numbers() {
	d.open("metadata")
	for i, key := range sorted(d, d.Metadata) {
		d.member(i == 0, key)
		f := d.Metadata[untypedConstKey(key)]
		if math.IsNaN(f) || math.IsInf(f, 0) {
			d.invalid("metadata[%.64q]: expected a finite number, got %v", key, f)
		}
		d.buf = strconv.AppendFloat(d.buf, f, 'g', -1, 64)
	}
	if _, given := d.Metadata[policy.ErrorKey]; d.stripped != "" && !given {
		d.member(len(d.Metadata) == 0, policy.ErrorKey)
		d.buf = append(d.buf, '1')
	}
	d.buf = append(d.buf, '}')
}

func (d *draft) strings() {
	d.open("featureFlags")
	for i, key := range sorted(d, d.FeatureFlags) {
		d.member(i == 0, key)
		d.text(d.FeatureFlags[key])
	}
	d.buf = append(d.buf, '}')
}

// privateValues encodes the private metadata, or leaves it out. The reason has neither keys
// nor values.
func (d *draft) privateValues() {
	start := len(d.buf)
	var value any
	defer func() {
		// Code of a value, such as MarshalJSON, may panic. The panic's text is not
		// repeated, because it may be private.
		if recover() != nil {
			d.stripped = fmt.Sprintf("privateMetadata: a value of type %.64T panicked while it was encoded", value)
		}
		if d.stripped != "" {
			d.buf = d.buf[:start]
		}
	}()
	d.open("privateMetadata")
	for i, key := range sorted(d, d.PrivateMetadata) {
		d.member(i == 0, key)
		value = d.PrivateMetadata[key]
		if !d.privateValue(value) {
			d.stripped = fmt.Sprintf("privateMetadata: expected values that encoding/json takes; one of type %.64T is none", value)
			return
		}
	}
	d.buf = append(d.buf, '}')
}

// privateValue encodes one value; usual types without reflection.
func (d *draft) privateValue(v any) bool {
	switch v := v.(type) {
	case nil:
		d.buf = append(d.buf, "null"...)
	case string:
		d.text(v)
	case error:
		d.text(v.Error())
	case bool:
		d.buf = strconv.AppendBool(d.buf, v)
	case int:
		d.buf = strconv.AppendInt(d.buf, int64(v), 10)
	case int64:
		d.buf = strconv.AppendInt(d.buf, v, 10)
	default:
		return d.privateAny(v)
	}
	return true
}

func (d *draft) privateAny(v any) bool {
	start := len(d.buf)
	e := json.NewEncoder((*appender)(d))
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return false
	}
	// The encoder ends with a line break, which would break files of JSON lines.
	d.buf = bytes.TrimSuffix(d.buf, []byte("\n"))
	// A json.RawMessage or a MarshalJSON may have invalid UTF-8 in its strings.
	if text := d.buf[start:]; !utf8.Valid(text) {
		d.buf = append(d.buf[:start], validUTF8(string(text))...)
	}
	return true
}

// appender is an io.Writer that appends to the JSON.
type appender draft

func (a *appender) Write(p []byte) (int, error) {
	a.buf = append(a.buf, p...)
	return len(p), nil
}

// newID appends a new UUIDv7.
func (d *draft) newID() {
	id, err := uuid.NewV7()
	if err != nil {
		d.invalid("id: cannot be made: %v", err)
	}
	d.text(id.String())
}

const hexDigits = "0123456789abcdef"

// validUTF8 replaces every invalid byte by U+FFFD, as encoding/json does.
func validUTF8(s string) string { return string([]rune(s)) }

// text appends a string in quotes. It replaces invalid UTF-8.
func (d *draft) text(s string) {
	if !utf8.ValidString(s) {
		s = validUTF8(s)
	}
	b := append(d.buf, '"')
	start := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[start:i]...)
		start = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
		}
	}
	b = append(b, s[start:]...)
	d.buf = append(b, '"')
}

// invalid remembers the first fault.
func (d *draft) invalid(format string, args ...any) {
	if d.fault == "" {
		d.fault = fmt.Sprintf(format, args...)
	}
}
