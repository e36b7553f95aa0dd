package relay

import (
	"fmt"
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
)

// streamWatch is what the loop remembers of the streams from Pub/Sub, to log their
// absence once and not all the time. The loop owns it.
type streamWatch struct {
	streamsWarned time.Time // when the log said last that no stream is open; zero: not since one was
}

const (
	// warnAfter is how long no stream may be open before the log says so: streams end
	// every so often by design.
	warnAfter = 10 * time.Second
	// notReadyAfter is how long no stream may be open before the worker is not ready.
	notReadyAfter = time.Minute
)

// noStream is how long no stream has been open although the worker receives.
func noStream(h consume.Health, now time.Time) time.Duration {
	if h.NoneSince.IsZero() {
		return 0
	}
	return now.Sub(h.NoneSince)
}

// streamless says that no stream is open, for how long, and why.
func streamless(h consume.Health, now time.Time) string {
	text := fmt.Sprintf("no stream from Pub/Sub has been open for %v", noStream(h, now).Round(time.Second))
	if h.LastError != "" {
		text += ": " + h.LastError
	}
	return text
}

// watchStreams logs the absence of streams, and its end.
func (r *Relay) watchStreams(h consume.Health, now time.Time) {
	away := noStream(h, now)
	switch {
	case h.Open > 0 && !r.streamsWarned.IsZero():
		r.streamsWarned = time.Time{}
		r.log.Info("A stream from Pub/Sub is open again")
	case away >= warnAfter && now.Sub(r.streamsWarned) >= remindEvery:
		r.streamsWarned = now
		r.log.Warn("No stream from Pub/Sub is open; nothing is received", "since", h.NoneSince.UTC().Format(time.RFC3339),
			"error", h.LastError)
	}
}

// streamsAtEnd says why a run that ends without a stream is no success; "" if it is
// one. A run that was stopped soon after its start had no time to open one.
func streamsAtEnd(h consume.Health, now time.Time) string {
	away := noStream(h, now)
	if away >= notReadyAfter || away >= warnAfter && !h.EverOpen {
		return streamless(h, now)
	}
	return ""
}
