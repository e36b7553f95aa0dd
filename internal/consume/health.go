package consume

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// Health is the state of the streams from Pub/Sub.
type Health struct {
	// Open is the number of open streams. A stream counts as open once Pub/Sub has
	// sent something over it, or once it has lasted for Intervals.OpenGrace.
	Open int
	// NoneSince is the time since which no stream has been open although the
	// Receiver receives. It is zero while a stream is open.
	NoneSince time.Time
	// EverOpen reports whether any stream was open in the life of the Receiver.
	EverOpen bool
	// EverAnswered reports whether Pub/Sub has answered a ping in the life of the
	// Receiver. The emulator answers none.
	EverAnswered bool
	// LastError says how the last stream ended, beginning with the gRPC code. It is "" if
	// none has ended. The text is Pub/Sub's own, about a stream, and quotes no message.
	LastError string
}

// RefusedError ends receiving: Pub/Sub has refused every stream for so long that waiting
// longer will not help.
type RefusedError struct {
	// Subscription is the full name of the subscription.
	Subscription string
	// For is how long every opening has been refused.
	For time.Duration
	// Err is the last refusal, a gRPC status error.
	Err error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("Pub/Sub has refused every stream of the subscription %s for %v (%s): %s",
		e.Subscription, e.For.Round(time.Second), describe(e.Err), e.ToCheck())
}

// ToCheck says what a person should check, given the code of the refusal.
func (e *RefusedError) ToCheck() string { return whatToCheck[status.Code(e.Err)] }

func (e *RefusedError) Unwrap() error { return e.Err }

// whatToCheck has the advice for each code of a refusal.
var whatToCheck = map[codes.Code]string{
	codes.NotFound:           "check PUBSUB_SUBSCRIPTION and GOOGLE_CLOUD_PROJECT, and that the subscription exists",
	codes.PermissionDenied:   "check that the worker's service account has roles/pubsub.subscriber on the subscription",
	codes.Unauthenticated:    "check the credentials that the worker runs with",
	codes.FailedPrecondition: "check that the key that encrypts the topic is enabled, and that this is a pull subscription",
	codes.Unimplemented:      "check PUBSUB_ENDPOINT and proxies: something that is not Pub/Sub seems to answer",
	codes.InvalidArgument:    "check PUBSUB_SUBSCRIPTION",
}

// describe returns the code and the message of a gRPC error.
func describe(err error) string {
	return fmt.Sprintf("%v: %s", status.Code(err), status.Convert(err).Message())
}

// refusal reports whether Pub/Sub refused the stream, as opposed to a network fault or an
// end by design. Errors of class retry.Refusal are known to pass by themselves, so only
// refusals that last end a run. InvalidArgument has never been seen to pass, but is treated
// in the same way.
func refusal(err error) bool {
	return retry.ClassOf(err) == retry.Refusal || status.Code(err) == codes.InvalidArgument
}

// streamState is the state of one stream.
type streamState struct {
	open   bool
	opened time.Time // when it was opened
	heard  time.Time // when Pub/Sub sent something over it last; zero: never
}

// health keeps the state of a Receiver's streams and decides when refusals have
// lasted for so long that receiving ends. It does no I/O and reads no clock.
type health struct {
	grace    time.Duration // after which a silent stream counts as open
	proof    time.Duration // after which a silent stream counts as accepted
	patience time.Duration // for which every opening may be refused

	streams      []streamState
	receiving    bool
	noneSince    time.Time
	refusedSince time.Time // since when every opening has been refused; zero if the last one was not
	everOpen     bool
	everAnswered bool // a ping was answered
	lastError    string
}

// begin notes that the receiver opens streams from now on.
func (h *health) begin(now time.Time) {
	h.receiving, h.noneSince, h.refusedSince = true, now, time.Time{}
}

// end notes that all streams have ended and the receiver opens no others.
func (h *health) end() {
	clear(h.streams)
	h.receiving, h.noneSince, h.refusedSince = false, time.Time{}, time.Time{}
}

func (h *health) opened(n int, now time.Time) {
	h.streams[n] = streamState{open: true, opened: now}
}

// heard notes that Pub/Sub has sent a response over a stream. A response without messages
// is the answer to a ping.
func (h *health) heard(n int, messages bool, now time.Time) {
	h.streams[n].heard = now
	h.refusedSince = time.Time{}
	h.everOpen = true
	h.everAnswered = h.everAnswered || !messages
}

// ended notes that a stream ended or could not be opened. It returns how long every opening
// has been refused once that exceeds patience, and 0 before.
func (h *health) ended(n int, err error, now time.Time) (refused time.Duration) {
	accepted := h.streams[n].accepted(now, h.proof)
	h.everOpen = h.everOpen || accepted
	h.streams[n] = streamState{}
	h.lastError = describe(err)
	switch {
	case !refusal(err):
		h.refusedSince = time.Time{}
	case accepted || h.refusedSince.IsZero():
		h.refusedSince = now
	}
	for _, s := range h.streams {
		if s.accepted(now, h.proof) {
			h.refusedSince = time.Time{}
		}
	}
	if h.refusedSince.IsZero() {
		return 0
	}
	if refused = now.Sub(h.refusedSince); refused < h.patience {
		return 0
	}
	return refused
}

// accepted reports whether Pub/Sub has accepted the stream beyond doubt.
func (s streamState) accepted(now time.Time, proof time.Duration) bool {
	return s.open && (!s.heard.IsZero() || now.Sub(s.opened) >= proof)
}

// snapshot returns the present state of the streams.
func (h *health) snapshot(now time.Time) Health {
	open := 0
	for _, s := range h.streams {
		if s.accepted(now, h.grace) {
			open++
		}
	}
	switch {
	case open > 0:
		h.everOpen, h.noneSince = true, time.Time{}
	case h.receiving && h.noneSince.IsZero():
		h.noneSince = now
	}
	return Health{Open: open, NoneSince: h.noneSince, EverOpen: h.everOpen, EverAnswered: h.everAnswered, LastError: h.lastError}
}

// answeredSince reports whether at least one stream is open, and every open stream has had
// a response since then. The emulator never answers pings. If no ping was ever answered, an
// open stream is enough.
func (h *health) answeredSince(since, now time.Time) bool {
	open, answered := 0, 0
	for _, s := range h.streams {
		if !s.open {
			continue
		}
		open++
		if !s.heard.Before(since) {
			answered++
		}
	}
	if !h.everAnswered {
		return h.snapshot(now).Open > 0
	}
	return open > 0 && answered == open
}
