package consumers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

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

// inFlight is how many streams to the gateway there are at once.
const inFlight = 8

// Submit is the plainest client of the gateway: it copies encoded events into
// batches, sends each in a stream of its own, and waits for the answer. It ends
// when it has sent the plan's events.
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
	rounds := (plan.Events/plan.Publishers + plan.Batch - 1) / plan.Batch
	var next atomic.Int64
	p := pool.New().WithContext(ctx).WithCancelOnError()
	for range inFlight {
		p.Go(func(ctx context.Context) error {
			var buf []byte
			for {
				n := int(next.Add(1)) - 1
				if n >= rounds*plan.Publishers {
					return nil
				}
				publisher, round := n%plan.Publishers, n/plan.Publishers
				buf = buf[:0]
				for i := round * plan.Batch; i < (round+1)*plan.Batch; i++ {
					if event := i*plan.Publishers + publisher; event < plan.Events {
						buf = maker.Append(buf, event)
					}
				}
				if err := submit(ctx, conn, load.ServiceID(publisher), buf); err != nil {
					return err
				}
			}
		})
	}
	return errors.Join(p.Wait(), conn.Close())
}

// submit sends one batch, given as an encoded EventsPayload.
func submit(ctx context.Context, conn *grpc.ClientConn, service string, events []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true},
		telemetrygatewayv1.TelemeteryGatewayService_RecordEvents_FullMethodName, grpc.ForceCodecV2(plain{}))
	if err != nil {
		return err
	}
	environment := load.Environment
	open, err := proto.Marshal(&telemetrygatewayv1.RecordEventsRequest{Payload: &telemetrygatewayv1.RecordEventsRequest_Metadata{
		Metadata: &telemetrygatewayv1.RecordEventsRequestMetadata{
			RequestId: "bench",
			Identifier: &telemetrygatewayv1.Identifier{Identifier: &telemetrygatewayv1.Identifier_ManagedService{
				ManagedService: &telemetrygatewayv1.Identifier_ManagedServiceIdentifier{ServiceId: service, ServiceEnvironment: &environment},
			}},
		},
	}})
	if err != nil {
		return err
	}
	head := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.BytesType), uint64(len(events)))
	for _, message := range []mem.BufferSlice{{mem.SliceBuffer(open)}, {mem.SliceBuffer(head), mem.SliceBuffer(events)}} {
		if err := stream.SendMsg(message); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for answers := 0; ; answers++ {
		if err := stream.RecvMsg(nil); errors.Is(err, io.EOF) {
			if answers != 1 {
				return fmt.Errorf("%d answers from the gateway", answers)
			}
			return nil
		} else if err != nil {
			return err
		}
	}
}

// plain sends what is encoded already, and does not look at answers.
type plain struct{}

func (plain) Name() string { return "proto" }

func (plain) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(mem.BufferSlice)
	if !ok {
		return nil, errors.New("not encoded")
	}
	return b, nil
}

func (plain) Unmarshal(mem.BufferSlice, any) error { return nil }
