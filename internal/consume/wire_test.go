package consume

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// seen has the compared parts of a message.
type seen struct {
	ID, AckID, OrderingKey, Data string
	Published                    time.Time
	Attributes                   map[string]string
}

// read reads a response to its end.
func read(r *reader, response Response) (all []seen, err error) {
	defer func() { _ = response.Close() }() // of memory
	for {
		messages, err := r.next(response)
		if err != nil || len(messages) == 0 {
			return all, err
		}
		for _, m := range messages {
			all = append(all, seen{m.ID, m.ackID, m.OrderingKey, string(m.Data), m.PublishTime, maps.Clone(m.Attributes)})
		}
	}
}

// reference decodes a response with the generated code.
func reference(t *testing.T, encoded []byte) (all []seen, ok bool) {
	t.Helper()
	var response pubsubpb.StreamingPullResponse
	if err := proto.Unmarshal(encoded, &response); err != nil {
		return nil, false
	}
	for _, r := range response.GetReceivedMessages() {
		p := r.GetMessage()
		all = append(all, seen{p.GetMessageId(), r.GetAckId(), p.GetOrderingKey(), string(p.GetData()), p.GetPublishTime().AsTime(), p.GetAttributes()})
	}
	return all, true
}

func typicalResponse(n int) *pubsubpb.StreamingPullResponse {
	response := &pubsubpb.StreamingPullResponse{}
	for range n {
		response.ReceivedMessages = append(response.ReceivedMessages, &pubsubpb.ReceivedMessage{
			AckId: strings.Repeat("A", 180),
			Message: &pubsubpb.PubsubMessage{
				Data: []byte(strings.Repeat("x", 350)), MessageId: "13371337133713371",
				Attributes:  map[string]string{"service_id": "cody-gateway", "service_environment": "prod", "service_version": "2026.46.1"},
				PublishTime: &timestamppb.Timestamp{Seconds: 1_795_000_000, Nanos: 123_000_000},
			},
		})
	}
	return response
}

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReaderAgreesWithGeneratedCode reads what the generated code has written, however the
// bytes are cut.
func TestReaderAgreesWithGeneratedCode(t *testing.T) {
	response := typicalResponse(3*pieceSize + 1)
	odd := response.GetReceivedMessages()
	odd[1].Message = nil
	odd[2].Message.PublishTime = nil
	odd[3].Message.Attributes = nil
	odd[4].Message.Data = nil
	odd[5].Message.OrderingKey = "a key"
	odd[6].Message.Attributes["traceparent"] = "00-1"
	odd[7] = &pubsubpb.ReceivedMessage{}
	odd[8].DeliveryAttempt = 7
	odd[9].Message.PublishTime = &timestamppb.Timestamp{Seconds: -62135596800, Nanos: 999_999_999}
	odd[10].Message.Data = make([]byte, 1<<20)
	response.SubscriptionProperties = &pubsubpb.StreamingPullResponse_SubscriptionProperties{MessageOrderingEnabled: true}
	b := encoded(t, response)
	want, _ := reference(t, b)
	for _, size := range []int{1, 7, 1000, 16 << 10, len(b)} {
		var cut mem.BufferSlice
		for at := 0; at < len(b); at += size {
			cut = append(cut, mem.SliceBuffer(b[at:min(len(b), at+size)]))
		}
		got, err := read(newReader(), cut.Reader())
		if err != nil {
			t.Fatalf("pieces of %d bytes: %v", size, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("pieces of %d bytes (-want +got):\n%s", size, diff)
		}
	}
}

// TestReaderSharesAttributes has many sets of attributes: the reader keeps them apart, and
// does not remember all of them.
func TestReaderSharesAttributes(t *testing.T) {
	r := newReader()
	for n := range 3 * maxInterned {
		response := typicalResponse(2)
		for _, m := range response.GetReceivedMessages() {
			m.GetMessage().GetAttributes()["service_version"] = time.Duration(n).String()
		}
		b := encoded(t, response)
		want, _ := reference(t, b)
		got, err := read(r, NewResponse(b))
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Fatalf("%v\n%s", err, diff)
		}
	}
	if len(r.known) > maxInterned {
		t.Errorf("%d sets of attributes are remembered", len(r.known))
	}
}

// TestAttributesAreTexts: a key or value of another kind is refused. The generated
// code takes it for an unknown field, and the attribute for an empty one.
func TestAttributesAreTexts(t *testing.T) {
	text := func(b []byte, number protowire.Number) []byte {
		return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), "text")
	}
	varint := func(b []byte, number protowire.Number) []byte {
		return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), 7)
	}
	fixed := func(b []byte, number protowire.Number) []byte {
		return protowire.AppendFixed64(protowire.AppendTag(b, number, protowire.Fixed64Type), 7)
	}
	for _, c := range []struct {
		name  string
		entry []byte
		ok    bool
	}{
		{"texts", text(text(nil, fieldKey), fieldValue), true},
		{"another field", varint(text(text(nil, fieldKey), fieldValue), 3), true},
		{"key is a varint", text(varint(nil, fieldKey), fieldValue), false},
		{"key is fixed", text(fixed(nil, fieldKey), fieldValue), false},
		{"value is a varint", varint(text(nil, fieldKey), fieldValue), false},
		{"value is fixed", fixed(text(nil, fieldKey), fieldValue), false},
		{"key is both", text(varint(text(nil, fieldKey), fieldKey), fieldValue), false},
	} {
		message := protowire.AppendBytes(protowire.AppendTag(nil, fieldAttribute, protowire.BytesType), c.entry)
		received := protowire.AppendBytes(protowire.AppendTag(nil, fieldMessage, protowire.BytesType), message)
		response := protowire.AppendBytes(protowire.AppendTag(nil, fieldReceived, protowire.BytesType), received)
		got, err := read(newReader(), NewResponse(response))
		if c.ok != (err == nil) || !c.ok && !errors.Is(err, errNoText) || c.ok && got[0].Attributes["text"] != "text" {
			t.Errorf("%s: got %v, %v", c.name, got, err)
		}
	}
}

// FuzzReader compares the reader with the generated code: the reader reads everything alike
// that the generated code reads. It may accept more.
func FuzzReader(f *testing.F) {
	f.Add(encoded(f, typicalResponse(2)))
	f.Add(encoded(f, &pubsubpb.StreamingPullResponse{ReceivedMessages: []*pubsubpb.ReceivedMessage{{}, {AckId: "a", Message: &pubsubpb.PubsubMessage{OrderingKey: "k"}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		want, ok := reference(t, b)
		got, err := read(newReader(), NewResponse(b))
		if !ok || errors.Is(err, errWireType) || errors.Is(err, errNoText) {
			return
		}
		if err != nil {
			t.Fatalf("%v, want %v", err, want)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// maxAllocations is for one message: itself, its text, its data, and a share of what its
// piece needs.
const maxAllocations = 3.2

// TestReaderAllocations guards the cost of a message.
func TestReaderAllocations(t *testing.T) {
	const n = 10 * pieceSize
	b := encoded(t, typicalResponse(n))
	r := newReader()
	perRun := testing.AllocsPerRun(10, func() {
		if got, err := count(r, b); err != nil || got != n {
			t.Fatal(got, err)
		}
	})
	if got := perRun / n; got > maxAllocations {
		t.Errorf("%.2f allocations a message, want at most %.1f", got, maxAllocations)
	}
}

// countingPool counts the buffers that were not put back.
type countingPool struct{ out int }

func (p *countingPool) Get(n int) *[]byte {
	p.out++
	b := make([]byte, n)
	return &b
}

func (p *countingPool) Put(*[]byte) { p.out-- }

// TestBuffersComeBack decodes a response as gRPC does: when it has been read, or
// given up, all its memory is free.
func TestBuffersComeBack(t *testing.T) {
	b := encoded(t, typicalResponse(100))
	for _, all := range []bool{true, false} {
		pool := &countingPool{}
		var data mem.BufferSlice
		for rest := b; len(rest) > 0; {
			n := min(len(rest), 4<<10)
			data = append(data, mem.Copy(rest[:n], pool))
			rest = rest[n:]
		}
		response := NewResponse(nil)
		if err := (codec{}).Unmarshal(data, response); err != nil {
			t.Fatal(err)
		}
		data.Free() // as gRPC does afterwards
		r := newReader()
		for n := 0; all && n < 100; {
			messages, err := r.next(response)
			if err != nil {
				t.Fatal(err)
			}
			n += len(messages)
		}
		if all && pool.out > 0 {
			t.Errorf("%d buffers are not free after the last message", pool.out)
		}
		_ = response.Close() // of memory: it cannot fail
		if pool.out > 0 {
			t.Errorf("%d buffers are not free after the end", pool.out)
		}
	}
}

func count(r *reader, b []byte) (n int, err error) {
	response := NewResponse(b)
	for {
		messages, err := r.next(response)
		if err != nil || len(messages) == 0 {
			return n, err
		}
		n += len(messages)
	}
}

func BenchmarkRead(b *testing.B) {
	const n = 1000
	response := encoded(b, typicalResponse(n))
	r := newReader()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := count(r, response); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
}
