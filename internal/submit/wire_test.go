package submit

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/race"
	telemetrygatewayv1 "github.com/sourcegraph/telemetry-relay/internal/telemetrygateway/v1"
)

// gatewayEvents makes n events of some size in the gateway's form.
func gatewayEvents(n, size int) []*telemetrygatewayv1.Event {
	all := make([]*telemetrygatewayv1.Event, n)
	for i := range all {
		version := string(bytes.Repeat([]byte{'x'}, size))
		all[i] = &telemetrygatewayv1.Event{
			Id: fmt.Sprintf("019a0000-0000-7000-8000-%012d", i), Feature: "cody.chat", Action: "sent",
			Timestamp: timestamppb.Now(),
			Source:    &telemetrygatewayv1.EventSource{Server: &telemetrygatewayv1.EventSource_Server{Version: version}},
		}
	}
	return all
}

func encoded(t testing.TB, all []*telemetrygatewayv1.Event) []*event.Event {
	t.Helper()
	events := make([]*event.Event, len(all))
	for i, e := range all {
		wire, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		events[i] = &event.Event{Wire: wire}
	}
	return events
}

func TestPayloadMatchesGeneratedCode(t *testing.T) {
	for _, c := range []struct{ n, size int }{{1, 0}, {1, 100}, {1, 2 << 20}, {127, 1}, {1000, 300}} {
		all := gatewayEvents(c.n, c.size)
		want := &telemetrygatewayv1.RecordEventsRequest{Payload: &telemetrygatewayv1.RecordEventsRequest_Events{
			Events: &telemetrygatewayv1.RecordEventsRequest_EventsPayload{Events: all},
		}}
		slices := func() mem.BufferSlice {
			b, err := codec{}.Marshal(payload(encoded(t, all)).marshal())
			if err != nil {
				t.Fatal(err)
			}
			return b
		}()
		got := new(telemetrygatewayv1.RecordEventsRequest)
		if err := proto.Unmarshal(slices.Materialize(), got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if size := proto.Size(want); slices.Len() != size {
			t.Errorf("%d bytes, want %d", slices.Len(), size)
		}
		slices.Free()
	}
}

func TestCodecRefuses(t *testing.T) {
	if _, err := (codec{}).Marshal("text"); err == nil {
		t.Error("encodes anything")
	}
	if err := (codec{}).Unmarshal(nil, new(telemetrygatewayv1.RecordEventsResponse)); err == nil {
		t.Error("decodes into anything")
	}
}

func response(ids ...string) []byte {
	b, err := proto.Marshal(&telemetrygatewayv1.RecordEventsResponse{SucceededEvents: ids})
	if err != nil {
		panic(err)
	}
	return b
}

func named(ids ...string) []*event.Event {
	events := make([]*event.Event, len(ids))
	for i, id := range ids {
		events[i] = &event.Event{Wire: protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), id)}
	}
	return events
}

func TestAnswerIsRead(t *testing.T) {
	unknown := protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), "a")
	otherType := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)
	group := protowire.AppendTag(nil, 5, protowire.StartGroupType)
	group = append(group, response("b")...)
	group = protowire.AppendTag(group, 5, protowire.EndGroupType)
	for _, c := range []struct {
		name string
		data []byte
		want []bool // of a, b and c
	}{
		{"all", response("a", "b", "c"), []bool{true, true, true}},
		{"none", nil, []bool{false, false, false}},
		{"one is missing", response("a", "c"), []bool{true, false, true}},
		{"the first is missing", response("b", "c"), []bool{false, true, true}},
		{"out of order", response("c", "a", "b"), []bool{true, true, true}},
		{"backwards", response("c", "b"), []bool{false, true, true}},
		{"twice", response("b", "b", "b", "b"), []bool{false, true, false}},
		{"not sent", response("x", "", "b", "ab", "B"), []bool{false, true, false}},
		{"unknown fields", slices.Concat(unknown, response("b"), otherType, group, response("c")), []bool{false, true, true}},
	} {
		a := NewListing(named("a", "b", "c"))
		if err := (codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(c.data)}, a); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !slices.Equal(a.listed, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, a.listed, c.want)
		}
	}
	t.Run("in pieces", func(t *testing.T) {
		var pieces mem.BufferSlice
		for _, b := range response("c", "a") {
			pieces = append(pieces, mem.SliceBuffer([]byte{b}))
		}
		a := NewListing(named("a", "b", "c"))
		if err := (codec{}).Unmarshal(pieces, a); err != nil || !slices.Equal(a.listed, []bool{true, false, true}) {
			t.Errorf("%v, %v", a.listed, err)
		}
	})
	t.Run("several", func(t *testing.T) {
		a := NewListing(named("a", "b", "c"))
		for _, id := range []string{"b", "a"} {
			if err := a.unmarshal(response(id)); err != nil {
				t.Error(err)
			}
		}
		if !slices.Equal(a.listed, []bool{true, true, false}) {
			t.Errorf("got %v", a.listed)
		}
	})
	for name, data := range map[string][]byte{
		"cut off":       response("a")[:2],
		"no tag":        {0xff},
		"field 0":       {0x02, 0x00},
		"length beyond": {0x0a, 0x7f, 'a'},
		"end of group":  {0x0c},
		"open group":    {0x2b, 0x0a, 0x00},
	} {
		if err := NewListing(named("a")).unmarshal(data); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzAnswer compares with the generated decoder.
func FuzzAnswer(f *testing.F) {
	f.Add(response("a", "b", "c"))
	f.Add(response("c", "x", "a"))
	f.Add([]byte{0x2b, 0x0a, 0x01, 'a', 0x2c, 0x0a, 0x01, 'b'})
	f.Add([]byte{0x0a, 0x7f, 'a'})
	f.Add([]byte{0x0a, 0x01, 0xff})
	ids := []string{"a", "b", "c", "dd"}
	f.Fuzz(func(t *testing.T, data []byte) {
		a := NewListing(named(ids...))
		err := a.unmarshal(data)
		want := new(telemetrygatewayv1.RecordEventsResponse)
		if proto.Unmarshal(data, want) != nil {
			return // it also refuses what is not UTF-8
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range ids {
			if a.listed[i] != slices.Contains(want.GetSucceededEvents(), id) {
				t.Errorf("%s is listed: %v", id, a.listed[i])
			}
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	ids := make([]string, 1000)
	for i, e := range gatewayEvents(1000, 0) {
		ids[i] = e.GetId()
	}
	data, events := response(ids...), named(ids...)
	b.ReportAllocs()
	for b.Loop() {
		if err := NewListing(events).unmarshal(data); err != nil {
			b.Fatal(err)
		}
	}
}

// maxPayloadAllocations is for a batch of any number of events: the list of buffers, and
// its parts.
const maxPayloadAllocations = 4

// TestPayloadAllocations guards that a batch is assembled in pooled buffers.
func TestPayloadAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector empties sync.Pool at random")
	}
	p := payload(encodedEvents(1000))
	assemble := func() {
		b := p.marshal()
		b.Free()
	}
	assemble()
	if got := testing.AllocsPerRun(100, assemble); got > maxPayloadAllocations {
		t.Errorf("%.1f allocations a batch, want at most %d", got, maxPayloadAllocations)
	}
}

func BenchmarkPayload(b *testing.B) {
	p := payload(encodedEvents(1000))
	b.ReportAllocs()
	for b.Loop() {
		buffers := p.marshal()
		buffers.Free()
	}
}

func encodedEvents(n int) []*event.Event {
	events := make([]*event.Event, n)
	for i := range events {
		events[i] = &event.Event{Wire: bytes.Repeat([]byte{1}, 250)}
	}
	return events
}
