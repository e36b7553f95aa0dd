package fakepubsub

import (
	"errors"
	"io"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/bench/rawgrpc"
)

// streamingPull delivers messages until the client closes the stream, within the client's
// flow control.
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
	go s.listen(st, call) // it ends with the call at the latest
	for {
		response, err := s.nextResponse(st)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := call.SendPooled(response); err != nil {
			return err
		}
	}
}

// listen receives the client's pings until it closes the stream.
func (s *Server) listen(st *stream, call rawgrpc.Stream) {
	for {
		_, err := call.Recv()
		s.mu.Lock()
		if err != nil {
			st.ended = io.EOF
		} else {
			s.report.Pings++
			st.heard, st.ping = time.Now(), st.answers
		}
		s.changed.Broadcast()
		s.mu.Unlock()
		if err != nil {
			return
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
		maxEvents: int(request.GetMaxOutstandingMessages()),
		heard:     time.Now(),
		answers:   request.GetProtocolVersion() >= 1,
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

// nextResponse waits for a message to deliver or a ping to answer. Its error is that of the
// stream, or io.EOF.
func (s *Server) nextResponse(st *stream) (*[]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.stopped {
			return nil, io.EOF
		}
		if st.ended != nil {
			return nil, st.ended
		}
		if st.ping {
			st.ping = false
			return &[]byte{}, nil
		}
		room := st.maxEvents - st.events
		if room > 0 && s.available() > 0 {
			n := min(room, perResponse, s.available())
			buf := mem.DefaultBufferPool().Get(min(n*s.maker.Size(), bytesPerResponse+s.maker.Size()))
			b, taken := s.take((*buf)[:0], n, st.id, deliveryLease)
			*buf = b
			st.events += taken
			s.report.Responses++
			return buf, nil
		}
		s.changed.Wait()
	}
}
