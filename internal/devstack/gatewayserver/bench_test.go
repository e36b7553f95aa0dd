package gatewayserver

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/types/known/structpb"
)

// BenchmarkRecordEvents records payloads of 1000 events, client and server in
// one process.
func BenchmarkRecordEvents(b *testing.B) {
	f := newFixture(b, Options{Discard: true})
	es := make([]*Event, 1000)
	for i := range es {
		es[i] = withPrivate(fmt.Sprintf("018f4d9e-0000-7000-8000-%012d", i), structpb.NewStringValue("value"))
	}
	s := f.open(f.ctx, metadataRequest(managed("svc", "dev")))
	b.ReportAllocs()
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += len(es) {
		must(b, s.Send(eventsRequest(es[:min(len(es), b.N-sent)]...)))
		_, err := s.Recv()
		must(b, err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.StopTimer()
	if got := f.Stats().Recorded; got != b.N {
		b.Errorf("%d recorded, want %d", got, b.N)
	}
}
