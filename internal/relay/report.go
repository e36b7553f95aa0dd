package relay

import (
	"time"

	"github.com/sourcegraph/telemetry-relay/internal/consume"
)

// measure brings the metrics up to date.
func (l *loop) measure(openStreams int, now time.Time) {
	m, set := l.run.metrics, l.inflight
	set.countReceived()
	m.EventsInFlight.Set(float64(set.count))
	m.EventsUndecided.Set(float64(set.undecided))
	m.OldestReceivedAge.Set(set.oldestAge(now).Seconds())
	m.SubmitConcurrencyLimit.Set(float64(l.submitter.limit.Limit()))
	m.SubmissionsInFlight.Set(float64(l.submitter.active()))
	m.BooksDifference.Set(float64(l.settlement.accounting.unaccounted(set.count + set.redelivered)))
	m.PubSubStreams.Set(float64(openStreams))
}

// status says which dependency is unavailable, if one is.
func (l *loop) status(health consume.Health, now time.Time) Status {
	switch b := l.availability.breaker; {
	case b.Open():
		return Status{Reason: b.Reason()}
	case l.deadLetters.unavailable != "":
		return Status{Reason: "the dead-letter topic does not take messages: " + l.deadLetters.unavailable}
	case l.receiving.preflight == preflightRunning:
		return Status{Reason: "Pub/Sub has not been reached yet"}
	case withoutStream(health, now) >= notReadyAfter:
		return Status{Reason: noStreamText(health, now)}
	case l.run.stopping:
		return Status{Reason: "stopping"}
	}
	return Status{Ready: true}
}
