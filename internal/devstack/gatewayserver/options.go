package gatewayserver

import (
	"crypto/tls"
)

const (
	// RequiredScope is the scope that a token must grant.
	RequiredScope = "telemetry_gateway::events::write"
	// MaxRequestBytes is the largest message that the server receives: 90 MiB,
	// as the real one.
	MaxRequestBytes = 90 << 20
	// MaxRenderedBytes is the size of an event's JSON rendering, together with
	// its stream's metadata, from which on the gateway loses it silently.
	MaxRenderedBytes = 10_000_000
	// MaxPublishedBytes is the size of the same rendering from which on Pub/Sub
	// refuses the message, since the attributes count, too.
	MaxPublishedBytes = 9_999_700
	// MaxAttributeKeyBytes and MaxAttributeKeys bound the keys of metadata that
	// become attributes of the gateway's message: Pub/Sub refuses more.
	MaxAttributeKeyBytes = 250
	MaxAttributeKeys     = 96
	// AttributePrefix is how those keys begin; they have at least two more bytes
	// and a value above 0.
	AttributePrefix = "recordsPrivateMetadata"
)

// Introspector returns the client and the scopes of an access token.
type Introspector interface {
	Introspect(token string) (active bool, scopes []string, clientID string)
}

// Options configures a Server; the zero value is usable.
type Options struct {
	// Addr is the TCP address to listen on; "127.0.0.1:0" if empty.
	Addr string
	// Introspector checks tokens, without a cache; nil takes every bearer token
	// for a good one.
	Introspector Introspector
	// TLS makes the server speak TLS; nil is plain text.
	TLS *tls.Config
	// Discard keeps no record of the events, only counts, so that memory stays
	// flat however many there are.
	Discard bool
	// OnRecord is called for every recorded event, in the order of recording
	// within a stream and from several streams at a time. It must not call Close.
	OnRecord func(Record)
}
