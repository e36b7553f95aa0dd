package app

import (
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
	"github.com/sourcegraph/telemetry-relay/internal/metrics"
	"github.com/sourcegraph/telemetry-relay/internal/relay"
)

// verdicts passes on the verdicts of a run: to the log of faults and to the metrics. The
// relay's loop calls it.
type verdicts struct {
	faults  *fault.Log
	metrics *metrics.Metrics
}

func (v *verdicts) add(of relay.Verdict) {
	attributes := of.Message.Attributes
	if of.Result == relay.Rejected {
		v.faults.Add(fault.Rejection{
			Reason: string(of.Rejection.Reason), Service: attributes[event.AttrServiceID], Detail: of.Rejection.Detail,
			EventID: of.EventID, MessageID: of.Message.ID, Release: attributes[event.AttrServiceVersion],
		})
	}
	if of.Replayed {
		v.metrics.ReplayedEvents.WithLabelValues(string(replayResult(of))).Inc()
	}
}

// replayResult is the verdict of a replayed message as on-call sees it. The duplicate of a
// rejected event is not in the gateway, so that "duplicate" would mislead.
func replayResult(of relay.Verdict) relay.Result {
	if of.Rejection != nil {
		return relay.Rejected
	}
	return of.Result
}
