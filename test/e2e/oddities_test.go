package e2e_test

import (
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// origin is when the replayed messages were first published.
var origin = time.Date(2026, 11, 20, 10, 0, 0, 500_000_000, time.UTC)

// oddities are events that look wrong and are valid.
func oddities() []*pubsubpb.PubsubMessage {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	all := []*pubsubpb.PubsubMessage{
		message("{" + head + "}"),
		message(" \t\r\n{ " + head + " } \n"),
		message(`{"feature":"` + strings.Repeat("a", 64) + `","action":"a."}`),
		message(`{"feature":"c\u006fdy","action":"s-X.y"}`),
		message(with(`"id":"019A0000-0000-7000-8000-00000000EEEE"`)),
		message(with(`"id":"00000000-0000-0000-0000-000000000000"`)),
		message(with(`"id":null,"timestamp":null,"metadata":null,"metadataVersion":null,"privateMetadata":null,` +
			`"billingMetadata":null,"user":null,"client":null,"interaction":null,"featureFlags":null,"marketingTracking":null`)),
		message(with(`"user":{"samsExternalId":null,"anonymousUserId":null,"userId":null},"client":{"name":null,"version":null},` +
			`"interaction":{"traceId":null},"billingMetadata":{"product":null},"marketingTracking":{"url":null}`)),
		message(with(`"metadata":{},"privateMetadata":{},"billingMetadata":{},"user":{},"client":{},"interaction":{},"featureFlags":{},"marketingTracking":{}`)),
		message(with(`"user":{"samsExternalId":"","anonymousUserId":"","userId":0},"client":{"name":"","version":""},"interaction":{"traceId":"","countryCode":""}`)),
		message(with(`"user":{"userId":9223372036854775807},"metadataVersion":2147483647`)),
		message(with(`"user":{"userId":-9223372036854775808},"metadataVersion":0`)),
		message(with(`"metadata":{"":0,"a":-0.0,"b":1e-400,"c":1.7976931348623157e308,"d":5e-324,"e":0.1,"f":9007199254740993,"\u00e9":1E+2}`)),
		message(with(`"privateMetadata":{"null":null,"t":true,"f":false,"n":-1.5e3,"s":"\ud83d\ude00\u0000\"\\\/ <>&\u2028","a":[[],{},null,[1,"x"]],"o":{"o":{"o":{}}}}`)),
		message(nested(100)),
		message(with(`"featureFlags":{"a":"","` + strings.Repeat("k", 300) + `":"` + strings.Repeat("v", 3000) + `"}`)),
		message(with(`"timestamp":"0001-01-01T00:00:00Z"`)),
		message(with(`"timestamp":"9999-12-31T23:59:59.999999999Z"`)),
		message(with(`"timestamp":"2026-11-20T12:43:26.123456789+02:30"`)),
		message(with(`"timestamp":"1969-12-31T23:59:59.5Z"`)),
		message(with(`"privateMetadata":{"text":"`+strings.Repeat("<", 1_600_000)+`"}`), "service_environment", "prod"),
		message(with(`"privateMetadata":{"text":"` + strings.Repeat("a", 4_100_000) + `"}`)),
		// Attributes.
		message(with(`"metadata":{"case":1}`), "schema_version", "1", "service_environment", "", "service_version", ""),
		message(with(`"metadata":{"case":2}`), "service_environment", "anything at all", "service_version", "v1.2.3+build (é)"),
		message(with(`"metadata":{"case":3}`), "traceparent", "00-"+trace+"-00f067aa0ba902b7-01"),
		message(with(`"metadata":{"case":4}`), "googclient_traceparent", "00-"+trace+"-00f067aa0ba902b7-00"),
		message(with(`"interaction":{"countryCode":"DE"}`), "traceparent", "00-"+trace+"-00f067aa0ba902b7-01"),
		message(with(`"interaction":{"traceId":"mine"}`), "traceparent", "00-"+trace+"-00f067aa0ba902b7-01"),
		// The names of the dead-letter queue have no meaning on a valid event.
		message(with(`"metadata":{"case":5}`), "dlq_reason", "mine", "replay_count", "none"),
		message(with(`"metadata":{"case":6}`), "origin_message_id", "4711", "origin_publish_time", "2026-11-20T10:00:00.5Z"),
		message(with(`"metadata":{"case":7}`), "replay_count", "0", "origin_message_id", "4711", "origin_publish_time", "2026-11-20T10:00:00.5Z"),
		// Replays keep the id and the time of the message that was first published.
		message(with(`"metadata":{"case":8}`), "replay_count", "1", "origin_message_id", "4711", "origin_publish_time", "2026-11-20T10:00:00.5Z"),
		message(with(`"timestamp":"2026-11-19T00:00:00Z"`), "replay_count", "12", "origin_message_id", "4712", "origin_publish_time", "2026-11-20T10:00:00.123456Z"),
		// Policies.
		named(`{"feature":"strict.anything","action":"sent","privateMetadata":{}}`, "service_id", "strict", "service_environment", "prod"),
		named(with(`"privateMetadata":{"dropped":"value"}`), "service_id", "dropper"),
	}
	for i := range 3 {
		m := message(with(fmt.Sprintf(`"metadata":{"ordered":%d}`, i)))
		m.OrderingKey = "customer-1"
		all = append(all, m)
	}
	return all
}
