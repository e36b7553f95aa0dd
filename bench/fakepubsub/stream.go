package fakepubsub

import (
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/bench/rawgrpc"
)

// streamingPull delivers until the client closes the stream, as much as it lets
// be unacknowledged.
func (s *Server) streamingPull(call rawgrpc.Stream) error {
	opening, err := call.Recv()
	if err != nil {
		return err
	}
	var request pubsubpb.StreamingPullRequest
	if err := proto.Unmarshal(opening, &request); err != nil {
		return err
	}
	st, err := s.newStream(&request)
	if err != nil {
		return err
	}
	go func() {
		// It ends with the call at the latest.
		for {
			if _, err := call.Recv(); err != nil {
				s.mu.Lock()
				st.closed = true
				s.changed.Broadcast()
				s.mu.Unlock()
				return
			}
		}
	}()
	for {
		response, ok := s.nextResponse(st)
		if !ok {
			return nil
		}
		if err := call.SendPooled(response); err != nil {
			return err
		}
	}
}

func (s *Server) newStream(request *pubsubpb.StreamingPullRequest) (*stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) > 255 {
		return nil, status.Error(codes.ResourceExhausted, "the benchmark's server has had 255 streams")
	}
	st := &stream{
		id:        uint8(len(s.streams)),
		lease:     time.Duration(request.GetStreamAckDeadlineSeconds()) * time.Second,
		maxEvents: int(request.GetMaxOutstandingMessages()),
	}
	if st.maxEvents <= 0 {
		st.maxEvents = 1000
	}
	if most := request.GetMaxOutstandingBytes(); most > 0 {
		st.maxEvents = min(st.maxEvents, max(1, int(most)/s.maker.Size()))
	}
	if s.first.IsZero() {
		s.first = time.Now()
	}
	s.streams = append(s.streams, st)
	return st, nil
}

// nextResponse waits for something to deliver; false: the stream has ended.
func (s *Server) nextResponse(st *stream) (*[]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.stopped || st.closed {
			return nil, false
		}
		room := st.maxEvents - st.events
		if room > 0 && s.available() > 0 {
			n := min(room, perResponse, s.available())
			buf := mem.DefaultBufferPool().Get(min(n*s.maker.Size(), bytesPerResponse+s.maker.Size()))
			b, taken := s.take((*buf)[:0], n, st.id, st.lease)
			*buf = b
			st.events += taken
			s.report.Responses++
			return buf, true
		}
		s.changed.Wait()
	}
}
