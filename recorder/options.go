package recorder

import (
	"context"
	"slices"
	"time"
)

// Option adds to an event. Options of the same type merge, such as the User of a middleware
// and that of a handler; of a field or key that both have, the last one counts. An option
// must not be changed while Record runs.
type Option interface {
	apply(d *draft)
}

// Metadata are numbers about the event. They leave the instance where the event happened,
// so they are limited to numbers and must not identify a person. They must be finite. Keys
// are constants; see [DynamicKey].
//
//	recorder.Metadata{"durationMs": recorder.Number(ms), "cached": recorder.Bool(hit)}
type Metadata map[untypedConstKey]float64

// Number converts any number for Metadata. An integer above 2^53 may lose digits.
func Number[N ~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr | ~float32 | ~float64](n N) float64 {
	return float64(n)
}

// Bool returns 1 for true and 0 for false.
func Bool(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// MetadataVersion is the version of the metadata's shape, 0 or more; the default is 0.
// Increase it when a key changes its meaning.
type MetadataVersion int32

// PrivateMetadata may have sensitive values, and any value that encoding/json accepts; an
// error becomes its text. services.yaml may make the relay leave it out or reject the
// event. If a value cannot be encoded, or makes the event one that the relay would reject,
// the event is recorded without any private metadata and with "telemetry.error": 1 in its
// metadata.
type PrivateMetadata map[string]any

// User is the person who caused the event. Empty fields, and a UserID of 0, are left out.
type User struct {
	// SAMSExternalID is the id of the user's Sourcegraph account.
	SAMSExternalID string `json:"samsExternalId,omitempty"`
	// AnonymousUserID identifies a person who is not signed in.
	AnonymousUserID string `json:"anonymousUserId,omitempty"`
	// UserID is the id of the user on a Sourcegraph instance.
	UserID int64 `json:"userId,omitempty"`
}

// Client is the program that the user used, such as an editor's extension. Empty fields are
// left out.
type Client struct {
	Name    string `json:"name,omitempty"`
	Version string `json:"version,omitempty"`
}

// Interaction ties events together. Empty fields are left out; an empty TraceID
// becomes the id of the context's OpenTelemetry trace, if there is one.
type Interaction struct {
	TraceID       string `json:"traceId,omitempty"`
	InteractionID string `json:"interactionId,omitempty"`
	// CountryCode is the user's country in ISO 3166-1 alpha-2.
	CountryCode string `json:"countryCode,omitempty"`
}

// Billing marks an event that counts for billing. Empty fields are left out.
type Billing struct {
	Product  string `json:"product,omitempty"`
	Category string `json:"category,omitempty"`
}

// FeatureFlags are the flags that were evaluated, and their values.
type FeatureFlags map[string]string

// Marketing is where the user came from. Empty fields are left out.
type Marketing struct {
	URL             string `json:"url,omitempty"`
	FirstSourceURL  string `json:"firstSourceUrl,omitempty"`
	CohortID        string `json:"cohortId,omitempty"`
	Referrer        string `json:"referrer,omitempty"`
	LastSourceURL   string `json:"lastSourceUrl,omitempty"`
	DeviceSessionID string `json:"deviceSessionId,omitempty"`
	SessionReferrer string `json:"sessionReferrer,omitempty"`
	SessionFirstURL string `json:"sessionFirstUrl,omitempty"`
}

// ID is the event's id, which replaces a new UUIDv7: a UUID in its form of 36 characters.
// An event that is recorded twice with the same id counts once.
type ID string

// Timestamp is when the event happened. It replaces the present time; the zero time means
// now.
type Timestamp time.Time

func (o Metadata) apply(d *draft)        { merge(&d.Metadata, &d.own.metadata, o) }
func (o MetadataVersion) apply(d *draft) { d.MetadataVersion = o }
func (o PrivateMetadata) apply(d *draft) { merge(&d.PrivateMetadata, &d.own.private, o) }
func (o FeatureFlags) apply(d *draft)    { merge(&d.FeatureFlags, &d.own.flags, o) }
func (o ID) apply(d *draft)              { d.ID, d.hasID = o, true }
func (o Timestamp) apply(d *draft)       { d.Timestamp = time.Time(o) }

func (o User) apply(d *draft) {
	override(&d.User.SAMSExternalID, o.SAMSExternalID)
	override(&d.User.AnonymousUserID, o.AnonymousUserID)
	override(&d.User.UserID, o.UserID)
}

func (o Client) apply(d *draft) {
	override(&d.Client.Name, o.Name)
	override(&d.Client.Version, o.Version)
}

func (o Interaction) apply(d *draft) {
	override(&d.Interaction.TraceID, o.TraceID)
	override(&d.Interaction.InteractionID, o.InteractionID)
	override(&d.Interaction.CountryCode, o.CountryCode)
}

func (o Billing) apply(d *draft) {
	override(&d.Billing.Product, o.Product)
	override(&d.Billing.Category, o.Category)
}

func (o Marketing) apply(d *draft) {
	override(&d.Marketing.URL, o.URL)
	override(&d.Marketing.FirstSourceURL, o.FirstSourceURL)
	override(&d.Marketing.CohortID, o.CohortID)
	override(&d.Marketing.Referrer, o.Referrer)
	override(&d.Marketing.LastSourceURL, o.LastSourceURL)
	override(&d.Marketing.DeviceSessionID, o.DeviceSessionID)
	override(&d.Marketing.SessionReferrer, o.SessionReferrer)
	override(&d.Marketing.SessionFirstURL, o.SessionFirstURL)
}

// override sets a field to an option's value, unless that is empty.
func override[T comparable](field *T, given T) {
	var empty T
	if given != empty {
		*field = given
	}
}

type contextKey struct{}

// ContextWith returns a context that adds these options to all its events, after those of
// the parent and before those of Record. Options of the same type merge. A nil parent means
// context.Background.
func ContextWith(parent context.Context, opts ...Option) context.Context {
	parent = orBackground(parent)
	return context.WithValue(parent, contextKey{}, append(slices.Clip(contextOptions(parent)), opts...))
}

// orBackground replaces a nil context, because telemetry must never panic.
func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

func contextOptions(ctx context.Context) []Option {
	opts, _ := ctx.Value(contextKey{}).([]Option)
	return opts
}
