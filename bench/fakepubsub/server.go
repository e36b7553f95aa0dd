// Package fakepubsub is a Pub/Sub for the benchmark that costs almost nothing: it makes
// messages when it delivers them. Flow control and leases are real, and every ack is
// checked. As in the service, a message delivered over a stream has a lease of ten minutes
// until its first ModifyAckDeadline, pings are answered, and a stream ends if its client is
// silent for a minute; see internal/devstack/pubsubserver.
package fakepubsub

import (
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/bench/load"
	"github.com/sourcegraph/telemetry-relay/bench/rawgrpc"
)

// Report has the counts of the server.
type Report struct {
	Acked       int `json:"acked"`
	AckedTwice  int `json:"acked_twice"`
	Redelivered int `json:"redelivered"` // because their leases expired, or were ended
	DeadLetters int `json:"dead_letters"`
	Wrong       int `json:"wrong"` // unknown ack ids and dead-lettered messages
	// The numbers of RPCs, and of ack ids in them.
	AckRPCs    int `json:"ack_rpcs"`
	ModifyRPCs int `json:"modify_rpcs"`
	ModifyIDs  int `json:"modify_ids"` // without receipts
	// Receipts are the ids of the first ModifyAckDeadline after a stream's delivery.
	Receipts  int `json:"receipts"`
	Responses int `json:"responses"`
	// Pings are the streams' requests after their first ones.
	Pings int `json:"pings"`
	// Seconds from the first delivery to the last acknowledgement.
	Seconds float64 `json:"seconds"`
	// BulkAcked is how many messages were acknowledged after BulkSeconds: all but the last
	// thousandth. A drain keeps a few events back until nothing else is in flight.
	BulkAcked   int     `json:"bulk_acked"`
	BulkSeconds float64 `json:"bulk_seconds"`
}

const (
	// perResponse and bytesPerResponse bound one response.
	perResponse      = 1000
	bytesPerResponse = 1 << 20
	checkLeases      = 500 * time.Millisecond
	deliveryLease    = 10 * time.Minute
	streamIdle       = time.Minute
)

// Server is a running server of one subscription.
type Server struct {
	plan  load.Plan
	maker *load.Maker
	stop  func()
	end   chan struct{}
	done  sync.WaitGroup

	mu        sync.Mutex
	changed   sync.Cond
	stopped   bool
	streams   []*stream
	next      int   // the first event that was never delivered
	again     []int // to be delivered again
	events    []state
	oldest    int // events before it are acknowledged
	began     time.Time
	first     time.Time
	last      time.Time
	report    Report
	published int // by rate
}

type state struct {
	until  uint32 // when the lease ends: milliseconds since began
	stream uint8  // whose flow control counts it; 0 if none does
	status uint8
	// awaited is set after a stream's delivery until the first ModifyAckDeadline.
	awaited bool
}

const (
	waiting = iota
	out
	acked
)

type stream struct {
	events    int
	maxEvents int
	heard     time.Time // the latest request
	ping      bool      // is to be answered
	answers   bool      // pings: the protocol's version is 1
	ended     error     // io.EOF: by the client
	id        uint8
}

// Start serves the plan's messages until Close. With a rate, publishing begins
// with the first stream.
func Start(plan load.Plan) (*Server, string, error) {
	s := &Server{plan: plan, maker: load.NewMaker(plan), events: make([]state, plan.Events), end: make(chan struct{}), began: time.Now(), streams: make([]*stream, 1)}
	s.changed.L = &s.mu
	addr, stop, err := rawgrpc.Serve(rawgrpc.Options{Distance: time.Duration(plan.PubsubDistance) * time.Millisecond}, s.serve)
	if err != nil {
		return nil, "", err
	}
	s.stop = stop
	s.done.Go(s.watch)
	return s, addr, nil
}

// Close stops the server and returns its report.
func (s *Server) Close() Report {
	s.mu.Lock()
	s.stopped = true
	s.changed.Broadcast()
	s.mu.Unlock()
	close(s.end)
	s.stop()
	s.done.Wait()
	s.report.Seconds = s.last.Sub(s.first).Seconds()
	return s.report
}

func (s *Server) serve(method string, call rawgrpc.Stream) error {
	switch method {
	case "/google.pubsub.v1.Subscriber/StreamingPull":
		return s.streamingPull(call)
	case "/google.pubsub.v1.Subscriber/Acknowledge":
		return s.unary(call, s.acknowledge)
	case "/google.pubsub.v1.Subscriber/ModifyAckDeadline":
		return s.unary(call, s.modify)
	case "/google.pubsub.v1.Subscriber/Pull":
		return s.unary(call, s.pull)
	case "/google.pubsub.v1.Publisher/Publish":
		return s.unary(call, s.publish)
	case "/google.pubsub.v1.Subscriber/GetSubscription":
		return s.unary(call, func([]byte) ([]byte, error) {
			return proto.Marshal(&pubsubpb.Subscription{Name: "projects/bench/subscriptions/events", Topic: "projects/bench/topics/events", AckDeadlineSeconds: 10})
		})
	case "/google.pubsub.v1.Publisher/GetTopic":
		return s.unary(call, func([]byte) ([]byte, error) {
			return proto.Marshal(&pubsubpb.Topic{Name: "projects/bench/topics/events"})
		})
	}
	return status.Error(codes.Unimplemented, method)
}

func (s *Server) unary(call rawgrpc.Stream, answer func([]byte) ([]byte, error)) error {
	request, err := call.Recv()
	if err != nil {
		return err
	}
	response, err := answer(request)
	if err != nil {
		return err
	}
	return call.Send(response)
}

// watch publishes by rate, and ends leases.
func (s *Server) watch() {
	publish := time.NewTicker(time.Millisecond)
	defer publish.Stop()
	if s.plan.Rate == 0 {
		publish.Stop()
	}
	leases := time.NewTicker(checkLeases)
	defer leases.Stop()
	for {
		select {
		case <-s.end:
			return
		case now := <-publish.C:
			s.publishDue(now)
		case now := <-leases.C:
			s.endLeases(now)
		}
	}
}

func (s *Server) publishDue(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.first.IsZero() {
		return
	}
	s.published = min(s.plan.Events, int(now.Sub(s.first).Seconds()*float64(s.plan.Rate)))
	if s.published > s.next {
		s.changed.Broadcast()
	}
}

// endLeases ends expired leases, and the streams of silent clients.
func (s *Server) endLeases(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := uint32(now.Sub(s.began).Milliseconds())
	for s.oldest < s.next && s.events[s.oldest].status == acked {
		s.oldest++
	}
	for _, st := range s.streams[1:] {
		if st.ended == nil && now.Sub(st.heard) > streamIdle {
			st.ended = status.Error(codes.Unavailable, "the client is silent")
			s.changed.Broadcast()
		}
	}
	for i := s.oldest; i < s.next; i++ {
		if e := &s.events[i]; e.status == out && e.until < at {
			s.putBack(i)
		}
	}
}

// putBack makes a message deliverable again. The caller has locked mu.
func (s *Server) putBack(i int) {
	s.free(i)
	s.events[i].status = waiting
	s.again = append(s.again, i)
	s.report.Redelivered++
	s.changed.Broadcast()
}

// free removes a message from its stream's flow control. The caller has locked mu.
func (s *Server) free(i int) {
	if n := s.events[i].stream; n != 0 {
		s.streams[n].events--
		s.events[i].stream = 0
	}
}

func (s *Server) acknowledge(request []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.AckRPCs++
	err := eachBytes(request, 2, func(id []byte) {
		i := load.AckedNumber(id)
		switch {
		case i < 0 || i >= s.next:
			s.report.Wrong++
		case s.events[i].status == acked:
			s.report.AckedTwice++
		default:
			s.free(i)
			s.events[i].status = acked
			s.report.Acked++
		}
	})
	s.last = time.Now()
	if s.report.BulkAcked == 0 && s.report.Acked*1000 >= s.plan.Events*999 {
		s.report.BulkAcked, s.report.BulkSeconds = s.report.Acked, s.last.Sub(s.first).Seconds()
	}
	s.changed.Broadcast()
	return nil, err
}

func (s *Server) modify(request []byte) ([]byte, error) {
	seconds, err := number(request, 3)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report.ModifyRPCs++
	until := s.until(time.Duration(seconds) * time.Second)
	err = eachBytes(request, 4, func(id []byte) {
		i := load.AckedNumber(id)
		if i >= 0 && i < s.next && s.events[i].awaited { // also if its acknowledgement has overtaken it
			s.events[i].awaited = false
			s.report.Receipts++
		} else {
			s.report.ModifyIDs++
		}
		switch {
		case i < 0 || i >= s.next:
			s.report.Wrong++
		case s.events[i].status != out:
		case seconds == 0:
			s.putBack(i)
		default:
			s.events[i].until = until
		}
	})
	return nil, err
}

func (s *Server) until(lease time.Duration) uint32 {
	return uint32((time.Since(s.began) + lease).Milliseconds())
}

func (s *Server) publish(request []byte) ([]byte, error) {
	var r pubsubpb.PublishRequest
	if err := proto.Unmarshal(request, &r); err != nil {
		return nil, err
	}
	response := &pubsubpb.PublishResponse{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range r.GetMessages() {
		i := load.NumberInData(m.GetData())
		if i < 0 || i >= s.next || s.plan.Valid(i) {
			s.report.Wrong++
		}
		s.report.DeadLetters++
		response.MessageIds = append(response.MessageIds, "1")
	}
	return proto.Marshal(response)
}

// available returns the number of messages that can be delivered now. The caller has locked
// mu.
func (s *Server) available() int {
	fresh := s.plan.Events
	if s.plan.Rate > 0 {
		fresh = s.published
	}
	return len(s.again) + max(0, fresh-s.next)
}

// take appends up to n messages to a response. The caller holds mu.
func (s *Server) take(b []byte, n int, stream uint8, lease time.Duration) (response []byte, taken int) {
	now := time.Now()
	if s.first.IsZero() {
		s.first = now
	}
	until := s.until(lease)
	n = min(n, s.available())
	for ; taken < n && len(b) < bytesPerResponse; taken++ {
		i := s.next
		if len(s.again) > 0 {
			i, s.again = s.again[0], s.again[1:]
			if s.events[i].status != waiting {
				continue // acknowledged late
			}
		} else {
			s.next++
		}
		at := s.first
		if s.plan.Rate > 0 {
			at = s.first.Add(time.Duration(float64(i) / float64(s.plan.Rate) * float64(time.Second)))
		}
		s.events[i] = state{until: until, stream: stream, status: out, awaited: stream != 0}
		b = s.maker.Append(b, i, at)
	}
	return b, taken
}

func (s *Server) pull(request []byte) ([]byte, error) {
	n, err := number(request, 3)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	response, _ := s.take(nil, int(n), 0, 10*time.Second)
	return response, nil
}

// eachBytes calls f with each value of a repeated field.
func eachBytes(b []byte, field protowire.Number, f func([]byte)) error {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		if n == field && kind == protowire.BytesType {
			value, size := protowire.ConsumeBytes(b)
			if size < 0 {
				return protowire.ParseError(size)
			}
			f(value)
			b = b[size:]
			continue
		}
		if size = protowire.ConsumeFieldValue(n, kind, b); size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
	}
	return nil
}

// number returns the value of a varint field, 0 if it is absent.
func number(b []byte, field protowire.Number) (uint64, error) {
	for len(b) > 0 {
		n, kind, size := protowire.ConsumeTag(b)
		if size < 0 {
			return 0, protowire.ParseError(size)
		}
		b = b[size:]
		if n == field && kind == protowire.VarintType {
			value, size := protowire.ConsumeVarint(b)
			if size < 0 {
				return 0, protowire.ParseError(size)
			}
			return value, nil
		}
		if size = protowire.ConsumeFieldValue(n, kind, b); size < 0 {
			return 0, protowire.ParseError(size)
		}
		b = b[size:]
	}
	return 0, nil
}
