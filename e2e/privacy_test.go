package e2e_test

import (
	"strings"
	"syscall"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sourcegraph/telemetry-relay/internal/local/gatewayserver"
)

// TestPrivate looks for private values wherever people look: they may be in the
// events only.
func TestPrivate(t *testing.T) {
	const marker = "pr1vate-mark"
	private := `"privateMetadata":{"` + marker + `":"` + marker + `","list":["` + marker + `"],"deep":{"` + marker + `":{"k":"` + marker + `"}}}`
	withID := func(i int, more string) *pubsubpb.PubsubMessage {
		return message(with(`"id":"` + eventID(i) + `",` + more))
	}
	good := []*pubsubpb.PubsubMessage{
		withID(0, private),
		message(with(private)),
		named(with(private), "service_id", "dropper"),
		withID(poison, private), // left out for ever
		withID(99, private),     // refused
	}
	bad := []*pubsubpb.PubsubMessage{
		message(`{"feature":"Bad",` + private + `}`),
		message(with(private + `,"unknown":"` + marker + `"`)),
		message(with(private + `,"user":{"email":"` + marker + `"}`)),
		message(with(private + `,"metadata":{"n":"` + marker + `"}`)),
		message(with(private + `,"metadataVersion":"` + marker + `"`)),
		message(with(private + `,"user":"` + marker + `"`)),
		message(with(private + `,"user":{"userId":"` + marker + `"}`)),
		message(with(private + `,"featureFlags":["` + marker + `"]`)),
		message(with(`"privateMetadata":"` + marker + `"`)),
		message(with(`"privateMetadata":["` + marker + `"]`)),
		message(with(`"privateMetadata":{"k":"` + marker + `","k":"` + marker + `2"}`)),
		message(with(`"privateMetadata":{"` + marker + `":1,"` + marker + `":2}`)),
		message(with(`"privateMetadata":{"` + marker + `":1e999}`)),
		message(with(`"privateMetadata":{"k":"` + marker + "\xff" + `"}`)),
		message(with(`"privateMetadata":{"k":` + marker + `}`)),
		message(with(`"privateMetadata":{"k":"` + marker)),
		message(`["` + marker + `"]`),
		message(`"` + marker + `"`),
		message(marker),
		message(with(private) + marker),
		named(`{"feature":"strict.a","action":"sent",`+private+`}`, "service_id", "strict"),
		message(with(`"privateMetadata":{"k":"` + strings.Repeat(marker, 400_000) + `"}`)),
	}
	h := newHouse(t)
	h.gateway.SetOnPayload(func(_ gatewayserver.StreamInfo, events []*gatewayserver.Event) gatewayserver.Fault {
		if has(events, 99) {
			// The gateway quotes what it refuses.
			return gatewayserver.Fault{Err: status.Errorf(codes.InvalidArgument, "bad: %s", marker)}
		}
		return gatewayserver.Fault{Omit: []string{eventID(poison)}}
	})
	h.publish(good...)
	h.publish(bad...)
	p := h.start(continuous, "LOG_LEVEL=debug", "WORKER_REJECT_AFTER=2", "WORKER_DIAGNOSTICS_ADDR="+freeAddr(t))
	// What is left out can only be judged while others are recorded.
	next := 100
	eventually(t, "everything is settled", func() bool {
		h.publish(event(next))
		next++
		return p.metric("telemetry_relay_events_rejected_total") == float64(len(bad)+2)
	})
	omits(t, p.get("/metrics", "").body, marker)
	got := p.stop(syscall.SIGTERM).exits(0)
	omits(t, got.stdout+got.stderr, marker)
	for _, m := range h.take(dlqSubID, len(bad)+2) {
		for key, value := range m.GetAttributes() {
			if strings.Contains(key+value, marker) {
				t.Errorf("attribute %s of a dead letter says %q", key, value)
			}
		}
		if !strings.Contains(string(m.GetData()), marker) {
			t.Errorf("a dead letter has lost its data: %v", m.GetAttributes())
		}
	}

	// `publish` reports the same lines to whoever ran it.
	var lines []byte
	for _, m := range bad {
		lines = append(lines, line(t, m)...)
	}
	published := execute(t, h.environ(), strings.NewReader(string(lines)), "publish").exits(1)
	omits(t, published.stdout+published.stderr, marker)
	broken := execute(t, h.environ(), strings.NewReader(`{"data":{"privateMetadata":"`+marker+`"`+"\n"+`{"`+marker+`":1}`+"\n"), "publish").exits(1)
	contains(t, broken.stderr, "stdin:1", "stdin:2")
}
