// Package submit records events at Telemetry Gateway: it authenticates through
// SAMS, sends one batch a stream, and tells for each event what became of it.
package submit

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/secrets"
)

// Batch is what one stream carries: events of one publisher, of less than the 90 MiB
// together that the gateway receives as one message. Several of them may have one id;
// see Collision. Without events it asks whether the gateway is there and takes the
// publisher.
type Batch struct {
	// RequestID names the stream in the gateway's logs and ours.
	RequestID string
	Publisher event.Publisher
	Events    []*event.Event
	// Connection chooses one of the client's connections. Different numbers below
	// limit.ConnectionsFor(Options.Streams) are different connections.
	Connection int
	// Canary asks for a canary when the stream fails with a transient error: a
	// stream with the same identity and no events.
	Canary bool
}

// withoutEvents is the canary of a batch: the same stream, as that publisher.
func (b Batch) withoutEvents(as event.Publisher) Batch {
	return Batch{RequestID: b.RequestID, Publisher: as, Connection: b.Connection}
}

// Result is what became of a batch.
type Result struct {
	// Listed says for each event whether the gateway has recorded it. It is nil
	// when there was no answer.
	Listed []bool
	// Collisions are the events of which the answer does not tell whether they are
	// recorded, because others have the same id. Listed is false for them.
	Collisions []Collision
	// Failure is why the stream failed; nil when it ended well. It may have
	// failed after the answer.
	Failure *Failure
	// Took is how long it took, without the wait for a token.
	Took time.Duration
}

// Code is the gRPC code with which the stream ended.
func (r Result) Code() codes.Code {
	if r.Failure == nil {
		return codes.OK
	}
	return r.Failure.Code
}

// Options of a Client.
type Options struct {
	// URL of the gateway: https://…, or http://… for plain text.
	URL string
	// Streams are in flight at most. They decide how many connections there are.
	Streams int
	// Timeout of one stream.
	Timeout time.Duration
	// Tokens authenticate the streams.
	Tokens *Tokens
	// Self is the identity under which the worker itself asks.
	Self event.Publisher
}

// Transport speaks to the gateway.
type Transport interface {
	// Exchange is one stream: metadata, the events as one payload if there are
	// any, the answer, the end. It enters the answer into the listing, and returns why
	// the stream failed.
	Exchange(ctx context.Context, token string, b Batch, answer *Listing) error
	// Close closes the connection.
	Close() error
}

// Client submits to one gateway. It is safe for concurrent use.
type Client struct {
	transport Transport
	timeout   time.Duration
	tokens    *Tokens
	self      event.Publisher
	// eventsSent: the gateway was sent at least one event.
	eventsSent atomic.Bool
}

// NewClient returns a client; it connects when it is first used.
func NewClient(opts Options) (*Client, error) {
	transport, err := dialPool(opts.URL, opts.Streams)
	if err != nil {
		return nil, err
	}
	return NewClientOver(transport, opts), nil
}

// NewClientOver is NewClient over a transport; the URL is not used.
func NewClientOver(transport Transport, opts Options) *Client {
	return &Client{transport: transport, timeout: opts.Timeout, tokens: opts.Tokens, self: opts.Self}
}

// Close closes the connection.
func (c *Client) Close() error { return c.transport.Close() }

// Tokenless reports whether streams have no token yet, and so wait for SAMS rather
// than for the gateway.
func (c *Client) Tokenless() bool { return c.tokens.Missing() }

// Probe asks without recording anything whether the gateway can be reached and
// accepts a token. The error is a *Failure.
func (c *Client) Probe(ctx context.Context, requestID string) error {
	if f := c.Submit(ctx, Batch{RequestID: requestID, Publisher: c.self}).Failure; f != nil {
		return f
	}
	return nil
}

// Submit sends a batch in a stream of its own and waits for the outcome.
func (c *Client) Submit(ctx context.Context, b Batch) Result {
	r := c.authenticated(ctx, b)
	switch {
	case r.Failure == nil:
	case r.Failure.Class == BatchRefused:
		r.Failure.Class = c.whoseFault(ctx, b)
	case r.Failure.Class == Transient && b.Canary:
		r.Failure.Canary = CanaryPassed
		if c.authenticated(ctx, b.withoutEvents(b.Publisher)).Failure != nil {
			r.Failure.Canary = CanaryFailed
		}
	}
	return r
}

// whoseFault asks again without the events, and then under another identity:
// only then does a refusal of the stream say what is the matter.
func (c *Client) whoseFault(ctx context.Context, b Batch) Class {
	if len(b.Events) > 0 {
		same := c.authenticated(ctx, b.withoutEvents(b.Publisher))
		if same.Failure == nil {
			return BatchRefused
		}
		if same.Failure.Class != BatchRefused {
			return Transient // no verdict now
		}
	}
	if b.Publisher == c.self {
		return Fatal
	}
	other := c.authenticated(ctx, b.withoutEvents(c.self))
	switch {
	case other.Failure == nil:
		return IdentityRefused
	case other.Failure.Class == BatchRefused:
		return Fatal
	}
	return Transient
}

// authenticated sends a batch with a token. A refused token is replaced once,
// at once: it may have been revoked.
func (c *Client) authenticated(ctx context.Context, b Batch) Result {
	for attempt := 0; ; attempt++ {
		token, err := c.tokens.Token(ctx)
		if err != nil {
			return Result{Failure: c.tokenFailure(err)}
		}
		r := c.stream(ctx, token, b)
		if attempt == 0 && r.Listed == nil && r.Failure != nil && r.Failure.Class == Credentials {
			c.tokens.Invalidate(token)
			continue
		}
		return r
	}
}

func (c *Client) tokenFailure(err error) *Failure {
	f := &Failure{
		Class: SAMS, Code: codes.Unavailable, Err: err, RetryAfter: c.tokens.PauseLeft(),
		words: clean(secrets.Mask(err.Error(), c.tokens.secrets()...)),
	}
	if _, ok := errors.AsType[*CredentialsError](err); ok {
		f.Class, f.Code = Credentials, codes.Unauthenticated
	}
	return f
}

// questionTimeout bounds a stream without events: one that hangs must not delay
// the moment at which a recovery is seen for as long as a full one may take.
const questionTimeout = 10 * time.Second

func (c *Client) stream(ctx context.Context, token string, b Batch) Result {
	timeout := c.timeout
	if len(b.Events) == 0 {
		timeout = min(timeout, questionTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if len(b.Events) > 0 {
		c.eventsSent.Store(true)
	}
	started := time.Now()
	answer := NewListing(b.Events)
	err := c.transport.Exchange(ctx, token, b, answer)
	r := Result{Took: time.Since(started)}
	r.Listed, r.Collisions = answer.Result()
	if err != nil {
		r.Failure = classify(err)
		r.Failure.words = shown(err, c.eventsSent.Load(), append(c.tokens.secrets(), token))
	}
	return r
}
