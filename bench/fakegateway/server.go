// Package fakegateway is a Telemetry Gateway for the benchmark that costs almost nothing:
// it lists every event as recorded, and checks that each comes once and under its own
// publisher.
package fakegateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/bench/load"
	"github.com/sourcegraph/telemetry-relay/bench/rawgrpc"
	"github.com/sourcegraph/telemetry-relay/internal/retry"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// Report has the counts of the server.
type Report struct {
	Recorded int `json:"recorded"` // different events
	Twice    int `json:"twice"`
	Wrong    int `json:"wrong"`   // invalid events, and those of another publisher
	Streams  int `json:"streams"` // with events, and taken
	Refused  int `json:"refused"` // with ResourceExhausted
	// MostStreams is the largest number of streams in flight.
	MostStreams int `json:"most_streams"`
	// First is when the first event was recorded.
	First time.Time `json:"first"`
	// The latencies run from an event's timestamp to its being recorded, in milliseconds,
	// if events are published at a rate. Those of a noisy publisher, and of the plan's
	// warm-up, do not count. Beside a flood, they run from the delivery of an honest event
	// to its being recorded.
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
	Max float64 `json:"max_ms"`
	// Seconds has the counts of each second from First on.
	Seconds []Second `json:"seconds"`
	// Reduced and Restored are the seconds in which the capacity changed.
	Reduced  int `json:"reduced"`
	Restored int `json:"restored"`
}

// Second has the counts of a second.
type Second struct {
	Recorded int `json:"recorded"` // events
	Streams  int `json:"streams"`
	Refused  int `json:"refused"` // streams
}

// maxStreams is how many streams a connection may have at once, as at Google's front ends
// and most servers.
const maxStreams = 100

// Server is a running gateway.
type Server struct {
	plan load.Plan
	stop func()

	mu      sync.Mutex
	seen    []bool
	report  Report
	latency []time.Duration
	busy    int       // payloads
	counted time.Time // latencies of events that were published earlier do not count
}

// Start serves until Close.
func Start(plan load.Plan) (*Server, string, error) {
	s := &Server{plan: plan, seen: make([]bool, plan.Events)}
	addr, stop, err := rawgrpc.Serve(rawgrpc.Options{MaxStreams: maxStreams}, s.record)
	if err != nil {
		return nil, "", err
	}
	s.stop = stop
	return s, addr, nil
}

// Close stops the server and returns its report.
func (s *Server) Close() Report {
	s.stop()
	slices.Sort(s.latency)
	if n := len(s.latency); n > 0 {
		milliseconds := func(share float64) float64 {
			return float64(s.latency[min(n-1, int(share*float64(n)))].Microseconds()) / 1000
		}
		s.report.P50, s.report.P99, s.report.Max = milliseconds(.5), milliseconds(.99), milliseconds(1)
	}
	return s.report
}

// record is one call of RecordEvents.
func (s *Server) record(method string, call rawgrpc.Stream) error {
	if method != telemetrygatewayv1.TelemeteryGatewayService_RecordEvents_FullMethodName {
		return status.Error(codes.Unimplemented, method)
	}
	head, _ := metadata.FromIncomingContext(call.Context())
	if token := head.Get("authorization"); len(token) != 1 || !strings.HasPrefix(token[0], "Bearer ") {
		return status.Error(codes.Unauthenticated, "no token")
	}
	publisher := ""
	for {
		request, err := call.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		kind, _, n := protowire.ConsumeTag(request)
		if n < 0 {
			return protowire.ParseError(n)
		}
		content, m := protowire.ConsumeBytes(request[n:])
		if m < 0 {
			return protowire.ParseError(m)
		}
		switch kind {
		case 1:
			var r telemetrygatewayv1.RecordEventsRequestMetadata
			if err := proto.Unmarshal(content, &r); err != nil {
				return err
			}
			publisher = r.GetIdentifier().GetManagedService().GetServiceId()
		case 2:
			response, err := s.take(call.Context(), publisher, content)
			if err != nil {
				return err
			}
			if err := call.Send(response); err != nil {
				return err
			}
		default:
			return status.Error(codes.InvalidArgument, fmt.Sprintf("field %d", kind))
		}
	}
}

// take takes a payload if there is capacity for it, and records it after the latency.
func (s *Server) take(ctx context.Context, publisher string, content []byte) ([]byte, error) {
	if err := s.begin(); err != nil {
		return nil, err
	}
	err := s.await(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	if err != nil {
		return nil, err
	}
	before := s.report.Recorded
	s.second(time.Now()) // begins with the first
	response, err := s.payload(publisher, content)
	s.note(s.report.Recorded - before)
	return response, err
}

// await lets the plan's latency pass.
func (s *Server) await(ctx context.Context) error {
	if s.plan.Latency == 0 {
		return nil
	}
	return retry.Sleep(ctx, time.Duration(s.plan.Latency)*time.Millisecond)
}

// note counts a payload and its events that were just recorded. The caller has locked mu.
func (s *Server) note(recorded int) {
	second := s.second(time.Now())
	second.Streams++
	second.Recorded += recorded
	s.report.Streams++
	last := len(s.report.Seconds) - 1
	if s.report.Reduced == 0 && 3*s.report.Recorded >= s.plan.Events {
		s.report.Reduced = last
	}
	if s.report.Restored == 0 && 3*s.report.Recorded >= 2*s.plan.Events {
		s.report.Restored = last
	}
}

// begin takes a payload, or refuses it.
func (s *Server) begin() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plan.FailAfter > 0 && s.report.Recorded >= s.plan.FailAfter {
		return status.Error(codes.Unavailable, "unavailable")
	}
	if most := s.plan.CapacityAfter(s.report.Recorded); most > 0 && s.busy >= most {
		s.report.Refused++
		s.second(time.Now()).Refused++
		return status.Errorf(codes.ResourceExhausted, "%d payloads are being recorded", s.busy)
	}
	s.busy++
	s.report.MostStreams = max(s.report.MostStreams, s.busy)
	return nil
}

// second returns the counts of the present second. The caller has locked mu.
func (s *Server) second(now time.Time) *Second {
	if s.report.First.IsZero() {
		s.report.First = now
		if s.plan.WarmUp > 0 {
			s.counted = now.Add(time.Duration(s.plan.WarmUp) * time.Second)
		}
	}
	n := int(now.Sub(s.report.First).Seconds())
	for len(s.report.Seconds) <= n {
		s.report.Seconds = append(s.report.Seconds, Second{})
	}
	return &s.report.Seconds[n]
}

// payload records the events and returns the answer. The caller holds mu.
func (s *Server) payload(publisher string, content []byte) ([]byte, error) {
	now := time.Now()
	var response []byte
	for len(content) > 0 {
		_, _, n := protowire.ConsumeTag(content)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		event, m := protowire.ConsumeBytes(content[n:])
		if m < 0 {
			return nil, protowire.ParseError(m)
		}
		content = content[n+m:]
		id, at, err := read(event, s.timed())
		if err != nil {
			return nil, err
		}
		i := load.Number(id)
		if i < 0 && s.plan.Flood == load.FloodID {
			i = load.NumberInData(event)
		}
		switch {
		case i < 0 || i >= len(s.seen) || !s.plan.Valid(i) || publisher != load.ServiceID(s.plan.Publisher(i)):
			s.report.Wrong++
			continue
		case s.seen[i]:
			s.report.Twice++
		default:
			s.seen[i] = true
			s.report.Recorded++
		}
		if s.plan.Rate > 0 && s.plan.Quiet(i) && !at.Before(s.counted) || s.plan.Honest(i) {
			s.latency = append(s.latency, now.Sub(at))
		}
		response = protowire.AppendBytes(protowire.AppendTag(response, 1, protowire.BytesType), id)
	}
	return response, nil
}

// timed reports whether the times of events are wanted.
func (s *Server) timed() bool { return s.plan.Rate > 0 || s.plan.Flood != "" }

// read returns an event's id, and its timestamp if wantTime is set.
func read(event []byte, wantTime bool) (id []byte, at time.Time, err error) {
	for len(event) > 0 {
		number, kind, n := protowire.ConsumeTag(event)
		if n < 0 {
			return nil, at, protowire.ParseError(n)
		}
		value, m := protowire.ConsumeBytes(event[n:])
		if kind != protowire.BytesType || m < 0 {
			return nil, at, status.Error(codes.InvalidArgument, "not an event")
		}
		event = event[n+m:]
		switch number {
		case 1:
			id = value
			if !wantTime {
				return id, at, nil
			}
		case 2:
			seconds, nanos := int64(0), int64(0)
			for len(value) > 0 {
				field, _, n := protowire.ConsumeTag(value)
				v, m := protowire.ConsumeVarint(value[max(0, n):])
				if n < 0 || m < 0 {
					return nil, at, status.Error(codes.InvalidArgument, "not a timestamp")
				}
				value = value[n+m:]
				if field == 1 {
					seconds = int64(v)
				} else {
					nanos = int64(v)
				}
			}
			return id, time.Unix(seconds, nanos), nil
		default:
		}
	}
	return id, at, nil
}
