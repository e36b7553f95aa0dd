package pubsubserver

import (
	"context"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
)

// maxOpenings is how many openings of a subscription are remembered.
const maxOpenings = 1000

// Opening is the beginning of a StreamingPull.
type Opening struct {
	// Request is the stream's first request.
	Request *pubsubpb.StreamingPullRequest
	// Metadata is what the client sent with it: content-type and
	// x-goog-request-params, for example.
	Metadata metadata.MD
	// Peer is the client's side of the connection, host:port.
	Peer string
	// Time is when the first request was received.
	Time time.Time
	// Refused is the error of RefuseStreams or of a FaultFunc that ended the stream
	// right away; nil if there was none.
	Refused error
}

// openings is what the server remembers about openings, and what it is to do with
// the next ones.
type openings struct {
	mu         sync.Mutex
	seen       map[string][]Opening // by subscription
	refuse     int                  // how many; negative: all
	refuseWith error
	silence    int // how many; negative: all
}

// admit decides about a stream by its first request.
func (s *Server) admit(ctx context.Context, first *pubsubpb.StreamingPullRequest) (silent bool, err error) {
	o := Opening{Request: proto.CloneOf(first), Time: time.Now()}
	o.Metadata, _ = metadata.FromIncomingContext(ctx)
	if p, ok := peer.FromContext(ctx); ok {
		o.Peer = p.Addr.String()
	}
	if o.Refused = s.openings.refusal(); o.Refused == nil {
		_, o.Refused = s.inject(ctx, "StreamingPull.Open", o)
	}
	s.openings.mu.Lock()
	defer s.openings.mu.Unlock()
	name := first.GetSubscription()
	seen := append(s.openings.seen[name], o)
	s.openings.seen[name] = seen[max(0, len(seen)-maxOpenings):]
	if o.Refused != nil {
		return false, o.Refused
	}
	return takeOne(&s.openings.silence), nil
}

func (o *openings) refusal() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if takeOne(&o.refuse) {
		return o.refuseWith
	}
	return nil
}

// takeOne takes one from a number that is without limit when it is negative.
func takeOne(n *int) bool {
	if *n > 0 {
		*n--
		return true
	}
	return *n < 0
}

// RefuseStreams makes the next n openings of a StreamingPull fail with err, a gRPC status
// error; n < 0 means all of them, until RefuseStreams is called again. Streams
// that are open stay open. The service refuses openings for a while with codes that look
// final: Unauthenticated (google-cloud-go#6920), PermissionDenied (python-pubsub#18), NotFound
// (java-pubsub#81).
func (s *Server) RefuseStreams(n int, err error) {
	s.openings.mu.Lock()
	defer s.openings.mu.Unlock()
	s.openings.refuse, s.openings.refuseWith = n, err
}

// Openings returns the latest 1,000 openings of a subscription's streams, the
// oldest first, refused ones too.
func (s *Server) Openings(subscription string) []Opening {
	s.openings.mu.Lock()
	defer s.openings.mu.Unlock()
	return slices.Clone(s.openings.seen[subscription])
}

// Pings returns the number of heartbeats, requests without ack ids, that the streams
// of a subscription have received after their first requests.
func (s *Server) Pings(subscription string) int {
	sub, err := s.subscription(subscription)
	if err != nil {
		return 0
	}
	return int(sub.pings.Load())
}
