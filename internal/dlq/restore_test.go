package dlq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/ndjson"
)

// TestRestoredMessageEqualsTheRemovedOne exports and restores each kind of message, twice in
// a row.
func TestRestoredMessageEqualsTheRemovedOne(t *testing.T) {
	at := time.Date(2026, 11, 20, 10, 0, 0, 123456789, time.UTC)
	written := func(l DeadLetter) *pubsubpb.PubsubMessage {
		t.Helper()
		l.MessageID, l.PublishTime, l.RejectedAt = "m1", at, at.Add(time.Hour)
		l.Rejection = event.Rejection{Reason: event.InvalidEvent, Detail: "typo: unknown field", EventID: "e1"}
		m, err := build(&l, Origin{Subscription: "s", WorkerVersion: "v", ServicesDigest: "0123456789ab"})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	many := map[string]string{"service_id": "sams"}
	for i := range 95 {
		many[fmt.Sprint("k", i)] = "v"
	}
	full := maps.Clone(many)
	for i := range 4 {
		full[fmt.Sprint("more", i)] = "v"
	}
	native := map[string]string{"service_id": "sams", nativeAttempts: "7", nativeSource: "s", nativePublishTime: at.Format(time.RFC3339Nano)}
	replayed := map[string]string{
		"service_id": "sams", event.AttrReplayCount: "2", event.AttrOriginMessageID: "m0", event.AttrOriginPublishTime: at.Format(time.RFC3339Nano),
		event.AttrOriginRejectedAt: at.Add(time.Minute).Format(time.RFC3339Nano), event.AttrReplayID: "r",
	}
	withNative := func(attributes map[string]string) map[string]string {
		a := maps.Clone(attributes)
		maps.Copy(a, native)
		return a
	}
	for name, m := range map[string]*pubsubpb.PubsubMessage{
		"plain":                  written(DeadLetter{Data: []byte(`{"feature":"a"}`), Attributes: map[string]string{"service_id": "sams"}}),
		"no JSON":                written(DeadLetter{Data: []byte("\xff\x00\x1b[2J")}),
		"no data":                written(DeadLetter{Attributes: map[string]string{"service_id": "sams"}}),
		"an ordering key":        written(DeadLetter{Data: []byte("{}"), OrderingKey: "k"}),
		"a long ordering key":    written(DeadLetter{Data: []byte("{}"), OrderingKey: strings.Repeat("k", 1025)}),
		"compressed":             written(DeadLetter{Data: bytes.Repeat([]byte(" "), maxMessage)}),
		"95 attributes":          written(DeadLetter{Data: []byte("{}"), Attributes: many}),
		"colliding names":        written(DeadLetter{Data: []byte("{}"), Attributes: map[string]string{"dlq_reason": "mine", "origin_x": "y", "dlq_restored": "true"}}),
		"a dead letter itself":   written(DeadLetter{Data: []byte("{}"), Attributes: map[string]string{"dlq_encoding": "gzip", "dlq_reason": "x"}}),
		"replayed":               written(DeadLetter{Data: []byte("{}"), Attributes: replayed}),
		"broken":                 {Data: []byte("x"), Attributes: map[string]string{AttrReason: "oversized", AttrEncoding: "what", AttrMessageID: "m1", AttrPublishTime: "2026-11-20T09:00:00Z", AttrRejectedAt: "2026-11-20T10:00:00Z"}},
		"native":                 {Data: []byte("{}"), Attributes: native},
		"native, ordered":        {Data: []byte("{}"), Attributes: native, OrderingKey: "k"},
		"native, replayed":       {Data: []byte("{}"), Attributes: withNative(replayed)},
		"unknown":                {Data: []byte("{ nonsense"), Attributes: map[string]string{"k": "v"}},
		"unknown, no attributes": {Data: []byte("x")},
	} {
		t.Run(name, func(t *testing.T) {
			m.MessageId, m.PublishTime = "d1", timestamppb.New(at.Add(2*time.Hour))
			want := Read(m, "prod")
			data := want.Original.Data
			want.Original.Data = nil // megabytes are compared on their own
			for round := range 2 {
				text, err := Line(Read(m, "prod"))
				if err != nil {
					t.Fatal(err)
				}
				line, err := ndjson.Parse(text)
				if err != nil {
					t.Fatalf("%v in %s", err, text)
				}
				if m, err = Restore(line); err != nil {
					t.Fatal(err)
				}
				m.MessageId, m.PublishTime = fmt.Sprint("d", 2+round), timestamppb.New(at.Add(24*time.Hour))
				got := Read(m, "prod")
				if !bytes.Equal(got.Original.Data, data) {
					t.Errorf("round %d: other data", round)
				}
				got.Original.Data = nil
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty(), cmpopts.EquateErrors(), cmpopts.IgnoreUnexported(Stored{}),
					cmpopts.IgnoreFields(Stored{}, "ID", "PublishTime", "Broken", "Added")); diff != "" {
					t.Errorf("round %d: %s", round, diff)
				}
				if (want.Broken == nil) != (got.Broken == nil) {
					t.Errorf("round %d: %v", round, got.Broken)
				}
				for key, value := range want.Added {
					if got.Added[key] != value && key != AttrEncoding {
						t.Errorf("round %d: %s is %q, want %q", round, key, got.Added[key], value)
					}
				}
			}
		})
	}
	// A message without a reason that has the maximum of attributes is restored unchanged.
	m, err := Restore(ndjson.Message{Data: []byte("x"), Attributes: full, DeadLetter: &ndjson.DeadLetter{ID: "d", MessageID: "d", RejectedAt: at}})
	if err != nil || !maps.Equal(m.GetAttributes(), full) {
		t.Errorf("%v, %v", m, err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		line ndjson.Message
		want string
	}{
		"a line for publish": {ndjson.Message{Data: []byte("{}"), Attributes: map[string]string{"service_id": "sams"}}, ErrNotDeadLettered.Error()},
		"a forged attribute": {ndjson.Message{Data: []byte("{}"), DeadLetter: &ndjson.DeadLetter{Attributes: map[string]string{"service_id": "x"}}}, "expected names of the queue"},
		"a long value":       {ndjson.Message{Data: []byte("{}"), DeadLetter: &ndjson.DeadLetter{Attributes: map[string]string{AttrReason: strings.Repeat("x", 1025)}}}, "values of at most"},
		"too many":           {ndjson.Message{DeadLetter: &ndjson.DeadLetter{}}, "neither data nor attributes"},
	} {
		if _, err := Restore(c.line); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// TestRestorerConfirmsFromTheBeginning has a topic that fails at the fourth request.
func TestRestorerConfirmsFromTheBeginning(t *testing.T) {
	var requests []int
	fault := errors.New("unavailable")
	r := Restorer{Publish: func(_ context.Context, messages []*pubsubpb.PubsubMessage) error {
		if len(requests) == 3 {
			return fault
		}
		requests = append(requests, len(messages))
		return nil
	}}
	message := func(key string) *pubsubpb.PubsubMessage {
		return &pubsubpb.PubsubMessage{Data: []byte("x"), OrderingKey: key}
	}
	for range 1001 {
		if err := r.Add(t.Context(), message("")); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"a", "a", "b"} {
		if err := r.Add(t.Context(), message(key)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Flush(t.Context()); !errors.Is(err, fault) || fmt.Sprint(requests) != "[1000 1 2]" || r.Done != 1003 {
		t.Errorf("%v, %v, %d", err, requests, r.Done)
	}
}
