package command

import (
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/retry"
)

// publishPatience is how long a command retries to publish while Pub/Sub is unavailable.
const publishPatience = time.Minute

// PublishBounds are shared by all requests of a command to one topic. Refusal is
// how long Pub/Sub may refuse the first request; 0 is 15 s.
func PublishBounds(refusal time.Duration) *retry.Bounds {
	if refusal == 0 {
		refusal = 15 * time.Second
	}
	return &retry.Bounds{Outage: publishPatience, Refusal: refusal}
}

// SayRetrying returns a function that logs that a request to publish is retried.
func SayRetrying(say func(format string, args ...any)) func(error, retry.Class) {
	return func(err error, class retry.Class) {
		if class == retry.Refusal {
			say("worker: Pub/Sub refuses the events; trying again, because what was just created or granted takes a while: %v", err)
			return
		}
		say("worker: Pub/Sub does not take events; trying again: %v", err)
	}
}
