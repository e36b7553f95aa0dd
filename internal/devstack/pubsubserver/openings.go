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
	faults *faults

	mu         sync.Mutex           // guards what follows
	seen       map[string][]Opening // by subscription
	refuse     int                  // how many; negative: all
	refuseWith error
	silence    int // how many; negative: all
}

func newOpenings(f *faults) *openings {
	return &openings{faults: f, seen: map[string][]Opening{}}
}

// admit decides about a stream by its first request.
func (o *openings) admit(ctx context.Context, first *pubsubpb.StreamingPullRequest) (silent bool, err error) {
	opening := Opening{Request: proto.CloneOf(first), Time: time.Now()}
	opening.Metadata, _ = metadata.FromIncomingContext(ctx)
	if p, ok := peer.FromContext(ctx); ok {
		opening.Peer = p.Addr.String()
	}
	if opening.Refused = o.refusal(); opening.Refused == nil {
		_, opening.Refused = o.faults.inject(ctx, "StreamingPull.Open", opening)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	name := first.GetSubscription()
	seen := append(o.seen[name], opening)
	o.seen[name] = seen[max(0, len(seen)-maxOpenings):]
	if opening.Refused != nil {
		return false, opening.Refused
	}
	return takeOne(&o.silence), nil
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
func (s *Server) RefuseStreams(n int, err error) { s.openings.refuseNext(n, err) }

func (o *openings) refuseNext(n int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.refuse, o.refuseWith = n, err
}

// Openings returns the latest 1,000 openings of a subscription's streams, the
// oldest first, refused ones too.
func (s *Server) Openings(subscription string) []Opening { return s.openings.of(subscription) }

func (o *openings) of(subscription string) []Opening {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen[subscription])
}

// Pings returns the number of heartbeats, requests without ack ids, that the streams
// of a subscription have received after their first requests.
func (s *Server) Pings(subscription string) int {
	sub, err := s.registry.subscription(subscription)
	if err != nil {
		return 0
	}
	return int(sub.pings.Load())
}
