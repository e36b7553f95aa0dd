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
)

// draft is an event on its way to JSON.
type draft struct {
	metadata        Metadata
	metadataVersion MetadataVersion
	private         PrivateMetadata
	user            User
	client          Client
	interaction     Interaction
	billing         Billing
	flags           FeatureFlags
	marketing       Marketing
	id              ID
	hasID           bool
	timestamp       time.Time

	// buf is the JSON so far, wire is room for the decoder, keys are those of the
	// map that is being encoded.
	buf, wire []byte
	keys      []string
	// fault is the first thing that JSON cannot say.
	fault string
}

var drafts = sync.Pool{New: func() any { return new(draft) }}

// maxKept is the largest buffer that is kept for the next event, in bytes.
const maxKept = 64 << 10

// release gives the draft back without any reference to its event.
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

// encode renders the event. It never leaves out what it cannot render: that is a
// fault.
func (d *draft) encode(ctx context.Context, feature Feature, action Action) {
	d.buf = append(d.buf, `{"feature":`...)
	d.string("feature", string(feature))
	d.buf = append(d.buf, `,"action":`...)
	d.string("action", string(action))
	d.buf = append(d.buf, `,"id":`...)
	if d.hasID {
		d.string("id", string(d.id))
	} else {
		d.newID()
	}
	at := d.timestamp
	if at.IsZero() {
		at = time.Now()
	}
	d.buf = append(d.buf, `,"timestamp":"`...)
	d.buf = at.UTC().AppendFormat(d.buf, time.RFC3339Nano)
	d.buf = append(d.buf, '"')
	if d.metadata != nil {
		d.numbers()
	}
	if d.metadataVersion != 0 {
		d.buf = append(d.buf, `,"metadataVersion":`...)
		d.buf = strconv.AppendInt(d.buf, int64(d.metadataVersion), 10)
	}
	if d.private != nil {
		d.privateValues()
	}
	d.parts(ctx)
	d.buf = append(d.buf, '}')
}

// parts renders the objects whose fields are all known.
func (d *draft) parts(ctx context.Context) {
	d.object("billingMetadata",
		part{"product", d.billing.Product},
		part{"category", d.billing.Category})
	if u := d.user; u.UserID == 0 {
		d.object("user", part{"samsExternalId", u.SAMSExternalID}, part{"anonymousUserId", u.AnonymousUserID})
	} else {
		d.buf = append(d.buf, `,"user":{"userId":`...)
		d.buf = strconv.AppendInt(d.buf, u.UserID, 10)
		d.fields("user", false, part{"samsExternalId", u.SAMSExternalID}, part{"anonymousUserId", u.AnonymousUserID})
		d.buf = append(d.buf, '}')
	}
	d.object("client", part{"name", d.client.Name}, part{"version", d.client.Version})
	d.interactionOf(ctx)
	if d.flags != nil {
		d.strings()
	}
	m := &d.marketing
	d.object("marketingTracking",
		part{"url", m.URL}, part{"firstSourceUrl", m.FirstSourceURL}, part{"cohortId", m.CohortID},
		part{"referrer", m.Referrer}, part{"lastSourceUrl", m.LastSourceURL}, part{"deviceSessionId", m.DeviceSessionID},
		part{"sessionReferrer", m.SessionReferrer}, part{"sessionFirstUrl", m.SessionFirstURL})
}

// interactionOf renders the interaction, which begins with the context's trace if
// it has none of its own.
func (d *draft) interactionOf(ctx context.Context) {
	i := &d.interaction
	more := []part{{"interactionId", i.InteractionID}, {"countryCode", i.CountryCode}}
	id := trace.SpanContextFromContext(ctx).TraceID()
	if i.TraceID != "" || !id.IsValid() {
		d.object("interaction", append([]part{{"traceId", i.TraceID}}, more...)...)
		return
	}
	d.buf = append(d.buf, `,"interaction":{"traceId":"`...)
	d.buf = append(hex.AppendEncode(d.buf, id[:]), '"')
	d.fields("interaction", false, more...)
	d.buf = append(d.buf, '}')
}

// part is a field of an object. It is left out if it is empty.
type part struct{ name, value string }

// object renders an object, which is left out if all its fields are.
func (d *draft) object(name string, parts ...part) {
	start := len(d.buf)
	d.open(name)
	if first := d.fields(name, true, parts...); first {
		d.buf = d.buf[:start]
		return
	}
	d.buf = append(d.buf, '}')
}

func (d *draft) fields(object string, first bool, parts ...part) bool {
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
		if !d.text(p.value) {
			d.invalid("%s.%s: expected valid UTF-8", object, p.name)
		}
	}
	return first
}

func (d *draft) open(name string) {
	d.buf = append(d.buf, `,"`...)
	d.buf = append(d.buf, name...)
	d.buf = append(d.buf, `":{`...)
}

// member begins a member of the map that was opened last.
func (d *draft) member(i int, object, key string) {
	if i > 0 {
		d.buf = append(d.buf, ',')
	}
	if !d.text(key) {
		d.invalid("%s: expected keys in valid UTF-8", object)
	}
	d.buf = append(d.buf, ':')
}

// sorted returns the keys of a map in their order, so that the same event always
// looks the same.
func sorted[V any](d *draft, m map[string]V) []string {
	d.keys = d.keys[:0]
	for key := range m {
		d.keys = append(d.keys, key)
	}
	slices.Sort(d.keys)
	return d.keys
}

func (d *draft) numbers() {
	d.open("metadata")
	for i, key := range sorted(d, d.metadata) {
		d.member(i, "metadata", key)
		f := d.metadata[key]
		if math.IsNaN(f) || math.IsInf(f, 0) {
			d.invalid("metadata[%.64q]: expected a finite number, got %v", key, f)
		}
		d.buf = strconv.AppendFloat(d.buf, f, 'g', -1, 64)
	}
	d.buf = append(d.buf, '}')
}

func (d *draft) strings() {
	d.open("featureFlags")
	for i, key := range sorted(d, d.flags) {
		d.member(i, "featureFlags", key)
		if !d.text(d.flags[key]) {
			d.invalid("featureFlags[%.64q]: expected valid UTF-8", key)
		}
	}
	d.buf = append(d.buf, '}')
}

// privateValues names neither keys nor values in a fault.
func (d *draft) privateValues() {
	d.open("privateMetadata")
	for i, key := range sorted(d, d.private) {
		d.member(i, "privateMetadata", key)
		if !d.privateValue(d.private[key]) {
			d.invalid("privateMetadata: expected values that encoding/json takes; one of type %.64T is none", d.private[key])
		}
	}
	d.buf = append(d.buf, '}')
}

// privateValue renders one value; the usual ones without reflection.
func (d *draft) privateValue(v any) bool {
	switch v := v.(type) {
	case nil:
		d.buf = append(d.buf, "null"...)
	case string:
		if !utf8.ValidString(v) {
			return d.privateAny(v)
		}
		d.text(v)
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
	e := json.NewEncoder((*appender)(d))
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return false
	}
	// The encoder ends with a line break, which no tool that reads lines expects.
	d.buf = bytes.TrimSuffix(d.buf, []byte("\n"))
	return true
}

// appender writes to the end of the JSON.
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
	d.buf = hex.AppendEncode(append(d.buf, '"'), id[:4])
	for _, group := range [][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		d.buf = hex.AppendEncode(append(d.buf, '-'), group)
	}
	d.buf = append(d.buf, '"')
}

// string appends a string of the event itself.
func (d *draft) string(field, s string) {
	if !d.text(s) {
		d.invalid("%s: expected valid UTF-8", field)
	}
}

const hexDigits = "0123456789abcdef"

// text appends a string in quotes, and reports whether it is valid UTF-8.
func (d *draft) text(s string) bool {
	b := append(d.buf, '"')
	start := 0
	ascii := true
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			ascii = ascii && c < utf8.RuneSelf
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
	return ascii || utf8.ValidString(s)
}

// invalid remembers the first fault.
func (d *draft) invalid(format string, args ...any) {
	if d.fault == "" {
		d.fault = fmt.Sprintf(format, args...)
	}
}
