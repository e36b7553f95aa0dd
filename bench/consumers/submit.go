package consumers

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sourcegraph/conc/pool"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/sourcegraph/telemetry-relay/bench/load"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// inFlight is the number of streams to the gateway at once.
const inFlight = 8

// Submit is the simplest client of the gateway: it copies encoded events into batches,
// sends each over a stream of its own, or all of a publisher over one, and waits for the
// answer. It ends when it has sent the plan's events.
func Submit(ctx context.Context, addr string, plan load.Plan) error {
	maker, err := load.NewEventMaker()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	if err != nil {
		return err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer bench")
	p := pool.New().WithContext(ctx).WithCancelOnError()
	for first := range inFlight {
		p.Go(func(ctx context.Context) error { return submitShare(ctx, conn, maker, plan, first) })
	}
	return errors.Join(p.Wait(), conn.Close())
}

// submitShare sends the events of every n-th publisher, in turns.
func submitShare(ctx context.Context, conn *grpc.ClientConn, maker *load.EventMaker, plan load.Plan, first int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends open streams
	kept := make(map[int]grpc.ClientStream)
	turn := plan.Batch * plan.Publishers // events of all publishers' batches
	rounds := (plan.Events + turn - 1) / turn
	var events []byte
	for round := range rounds {
		for publisher := first; publisher < plan.Publishers; publisher += inFlight {
			events = events[:0]
			for i := round * plan.Batch; i < (round+1)*plan.Batch; i++ {
				if event := i*plan.Publishers + publisher; event < plan.Events {
					events = maker.Append(events, event)
				}
			}
			if len(events) == 0 {
				continue // the last ones have fewer
			}
			stream := kept[publisher]
			if stream == nil {
				var err error
				if stream, err = open(ctx, conn, load.ServiceID(publisher)); err != nil {
					return err
				}
			}
			if err := send(stream, events); err != nil {
				return err
			}
			if plan.KeepStreams {
				kept[publisher] = stream
			} else if err := end(stream); err != nil {
				return err
			}
		}
	}
	for _, stream := range kept {
		if err := end(stream); err != nil {
			return err
		}
	}
	return nil
}

// open opens a stream of one publisher.
func open(ctx context.Context, conn *grpc.ClientConn, service string) (grpc.ClientStream, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		telemetrygatewayv1.TelemeteryGatewayService_RecordEvents_FullMethodName, grpc.ForceCodecV2(plain{}))
	if err != nil {
		return nil, err
	}
	environment := load.Environment
	head, err := proto.Marshal(&telemetrygatewayv1.RecordEventsRequest{Payload: &telemetrygatewayv1.RecordEventsRequest_Metadata{
		Metadata: &telemetrygatewayv1.RecordEventsRequestMetadata{
			RequestId: "bench",
			Identifier: &telemetrygatewayv1.Identifier{Identifier: &telemetrygatewayv1.Identifier_ManagedService{
				ManagedService: &telemetrygatewayv1.Identifier_ManagedServiceIdentifier{ServiceId: service, ServiceEnvironment: &environment},
			}},
		},
	}})
	if err != nil {
		return nil, err
	}
	return stream, stream.SendMsg(mem.BufferSlice{mem.SliceBuffer(head)})
}

// send sends one batch, given as an encoded EventsPayload, and waits for the answer.
func send(stream grpc.ClientStream, events []byte) error {
	head := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.BytesType), uint64(len(events)))
	if err := stream.SendMsg(mem.BufferSlice{mem.SliceBuffer(head), mem.SliceBuffer(events)}); err != nil {
		return err
	}
	return stream.RecvMsg(nil)
}

// end ends a stream whose answers have all come.
func end(stream grpc.ClientStream) error {
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := stream.RecvMsg(nil); !errors.Is(err, io.EOF) {
		return fmt.Errorf("an answer too many from the gateway, or none: %w", err)
	}
	return nil
}

// plain sends encoded messages, and ignores answers.
type plain struct{}

func (plain) Name() string { return "" }

func (plain) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(mem.BufferSlice)
	if !ok {
		return nil, errors.New("not encoded")
	}
	return b, nil
}

func (plain) Unmarshal(mem.BufferSlice, any) error { return nil }
