// Package submit records events at Telemetry Gateway: it authenticates through SAMS, sends
// one batch over one stream, and returns the result for each event.
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

// Batch is the content of one stream: events of one publisher, less than the 90 MiB that
// the gateway accepts as one message. Several events may have the same id; see Collision. A
// batch without events asks whether the gateway is available and accepts the publisher.
type Batch struct {
	// RequestID identifies the stream in the logs of the gateway and of the worker.
	RequestID string
	Publisher event.Publisher
	Events    []*event.Event
	// Connection selects one of the client's connections. Different numbers below
	// limit.ConnectionsFor(Options.Streams) select different connections.
	Connection int
	// Canary requests a canary if the stream fails with a transient error: a stream with
	// the same identity and no events.
	Canary bool
}

// withoutEvents returns a batch without events for another stream of this publisher, over
// the same connection.
func (b Batch) withoutEvents(as event.Publisher) Batch {
	return Batch{RequestID: b.RequestID, Publisher: as, Connection: b.Connection}
}

// Result is the result of a batch.
type Result struct {
	// Listed says for each event whether the gateway has recorded it. It is nil if there
	// was no answer.
	Listed []bool
	// Collisions are events for which the answer does not say whether they are recorded,
	// because others have the same id. Listed is false for them.
	Collisions []Collision
	// Failure is why the stream failed, or nil. A stream may fail after its answer.
	Failure *Failure
	// Took is the duration of the stream, without the wait for a token.
	Took time.Duration
}

// Code returns the gRPC code with which the stream ended.
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
	// Streams is the largest number of streams in flight. The number of connections follows
	// from it.
	Streams int
	// Timeout of one stream.
	Timeout time.Duration
	// Tokens authenticate the streams.
	Tokens *Tokens
	// Self is the identity of streams that the worker opens for itself.
	Self event.Publisher
}

// Transport sends streams to the gateway.
type Transport interface {
	// Exchange runs one stream: it sends the metadata, and the events, if any, as one
	// payload, and receives the answer until the end. It enters the answer into the
	// listing, and returns why the stream failed.
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
	// eventsSent is set once the gateway was sent an event.
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

// NewClientOver returns a client over a transport. It ignores the URL.
func NewClientOver(transport Transport, opts Options) *Client {
	return &Client{transport: transport, timeout: opts.Timeout, tokens: opts.Tokens, self: opts.Self}
}

// Close closes the connection.
func (c *Client) Close() error { return c.transport.Close() }

// Tokenless reports whether there is no token yet, so that streams wait for SAMS rather
// than for the gateway.
func (c *Client) Tokenless() bool { return c.tokens.Missing() }

// Probe asks whether the gateway is available and accepts a token. It records nothing. The
// error is a *Failure.
func (c *Client) Probe(ctx context.Context, requestID string) error {
	if f := c.Submit(ctx, Batch{RequestID: requestID, Publisher: c.self}).Failure; f != nil {
		return f
	}
	return nil
}

// Submit sends a batch over a stream of its own and waits for the result.
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

// whoseFault repeats a refused stream without events, and then under another identity,
// because the refusal alone does not say whether it means the events, the identity or the
// worker.
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

// authenticated sends a batch with a token. If the gateway refuses the token, it tries once
// more with a new one, because the token may have been revoked.
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

// questionTimeout bounds a stream without events. If the full timeout applied, one that
// hangs would delay the detection of a recovery.
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
