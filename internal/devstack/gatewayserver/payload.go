package gatewayserver

import (
	"context"

	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/bundle"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// decision says what becomes of one event of a payload.
type decision struct {
	verdict   verdict
	omitted   bool // the Fault leaves the event out of the response
	published bool // the event is sent to Pub/Sub, which may refuse it
}

// serve records one payload and responds to it.
func (s *session) serve(ctx context.Context, events []*Event, respond func(*telemetrygatewayv1.RecordEventsResponse) error) error {
	s.info.Payload++
	received := Counts{Payloads: 1, Received: len(events)}
	fault := s.server.payloadFault(s.info, events)
	err := fault.wait(ctx)
	if err == nil && fault.Err != nil && fault.Phase == BeforeRecording {
		err = fault.Err
	}
	if err != nil {
		s.server.ledger.count(s.info.Identity, received)
		return err
	}
	decisions := s.decide(events, fault)
	if err := s.publish(ctx, events, decisions); err != nil {
		s.server.ledger.count(s.info.Identity, received)
		return status.FromContextError(err).Err()
	}
	succeeded := s.record(events, decisions, received)
	if fault.Err != nil && fault.Phase == BeforeResponding {
		return fault.Err
	}
	if err := respond(&telemetrygatewayv1.RecordEventsResponse{SucceededEvents: succeeded}); err != nil {
		return err
	}
	return fault.Err
}

// decide applies the gateway's rules and the fault to each event.
func (s *session) decide(events []*Event, fault Fault) []decision {
	omits := fault.omits()
	decisions := make([]decision, len(events))
	for i, e := range events {
		v := judge(e, s.metadata)
		omitted := v != invalid && omits(e.GetId())
		decisions[i] = decision{
			verdict:   v,
			omitted:   omitted,
			published: (v == recordable || v == refused) && (!omitted || fault.RecordOmitted),
		}
	}
	return decisions
}

// publish sends events to Pub/Sub. The verdict of those that do not arrive there becomes
// unpublished.
func (s *session) publish(ctx context.Context, events []*Event, decisions []decision) error {
	var messages []bundle.Message
	for i, d := range decisions {
		if d.published {
			messages = append(messages, bundle.Message{ID: events[i].GetId(), Refused: d.verdict == refused})
		}
	}
	arrived, err := s.server.publisher.Publish(ctx, messages)
	if err != nil {
		return err
	}
	for i := range decisions {
		d := &decisions[i]
		if !d.published {
			continue
		}
		if !arrived[0] {
			d.verdict = unpublished
		}
		arrived = arrived[1:]
	}
	return nil
}

// record adds the payload to the ledger and returns the ids of the events that the response
// reports as succeeded. received has the counts of the payload so far.
func (s *session) record(events []*Event, decisions []decision, received Counts) []string {
	counts := received
	succeeded := make([]string, 0, len(events))
	records := make([]Record, 0, len(events))
	for i, d := range decisions {
		e := events[i]
		if d.published && d.verdict == recordable {
			records = append(records, Record{
				Identity: s.info.Identity, RequestID: s.info.RequestID, StreamID: s.info.ID, Event: e,
			})
		}
		switch {
		case d.verdict == invalid:
			counts.Invalid++
		case d.verdict == unpublished:
			counts.Unpublished++
		case d.omitted:
			counts.Omitted++
		default:
			if d.verdict == silentlyLost {
				counts.SilentlyLost++
			}
			succeeded = append(succeeded, e.GetId())
		}
	}
	counts.Recorded = len(records)
	s.server.record(s.info.Identity, records, counts)
	return succeeded
}
