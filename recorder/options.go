package recorder

import (
	"context"
	"slices"
	"time"
)

// Option is something about an event beside its feature and action. Of options of
// the same type the last one counts. An option must not be changed while Record
// runs; afterwards it may.
type Option interface {
	apply(d *draft)
}

// Metadata are numbers about the event. They leave the instance where the event
// happened, so only numbers are possible, and nothing that identifies anybody.
// They must be finite.
type Metadata map[string]float64

// Bool is 1 for true and 0 for false.
func Bool(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// MetadataVersion is the version of the metadata's shape, 0 or more; 0 if it is
// not given. Count it up when a key changes its meaning.
type MetadataVersion int32

// PrivateMetadata may hold anything that encoding/json takes, and sensitive
// values. services.yaml may make the relay leave it out or reject the event.
type PrivateMetadata map[string]any

// User says who did it. Empty fields are left out, and so is a UserID of 0.
type User struct {
	// SAMSExternalID is the id of the user's Sourcegraph account.
	SAMSExternalID string `json:"samsExternalId,omitempty"`
	// AnonymousUserID identifies somebody who is not signed in.
	AnonymousUserID string `json:"anonymousUserId,omitempty"`
	// UserID is the id of the user on a Sourcegraph instance.
	UserID int64 `json:"userId,omitempty"`
}

// Client is what the user used, such as an editor's extension. Empty fields are
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
	// CountryCode is the user's, as in ISO 3166-1 alpha-2.
	CountryCode string `json:"countryCode,omitempty"`
}

// Billing marks an event that counts for billing. Empty fields are left out.
type Billing struct {
	Product  string `json:"product,omitempty"`
	Category string `json:"category,omitempty"`
}

// FeatureFlags are the flags that were evaluated, and their values.
type FeatureFlags map[string]string

// Marketing says where the user came from. Empty fields are left out.
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

// ID is the event's id instead of a new UUIDv7: a UUID in its form of 36
// characters. An event that is recorded twice with the same id counts once.
type ID string

// Timestamp is when it happened instead of now; the zero time is now.
type Timestamp time.Time

func (o Metadata) apply(d *draft)        { d.metadata = o }
func (o MetadataVersion) apply(d *draft) { d.metadataVersion = o }
func (o PrivateMetadata) apply(d *draft) { d.private = o }
func (o User) apply(d *draft)            { d.user = o }
func (o Client) apply(d *draft)          { d.client = o }
func (o Interaction) apply(d *draft)     { d.interaction = o }
func (o Billing) apply(d *draft)         { d.billing = o }
func (o FeatureFlags) apply(d *draft)    { d.flags = o }
func (o Marketing) apply(d *draft)       { d.marketing = o }
func (o ID) apply(d *draft)              { d.id, d.hasID = o, true }
func (o Timestamp) apply(d *draft)       { d.timestamp = time.Time(o) }

type contextKey struct{}

// ContextWith returns a context whose events all have these options, beside those
// of the parent. Options that Record is given come after them.
func ContextWith(parent context.Context, opts ...Option) context.Context {
	return context.WithValue(parent, contextKey{}, append(slices.Clip(contextOptions(parent)), opts...))
}

func contextOptions(ctx context.Context) []Option {
	opts, _ := ctx.Value(contextKey{}).([]Option)
	return opts
}
