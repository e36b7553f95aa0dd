package topic

import (
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

func TestOversizedMessagesAreRefused(t *testing.T) {
	many := map[string]string{}
	for len(many) < 101 {
		many[strings.Repeat("x", len(many)+1)] = ""
	}
	attribute := func(key, value string) *pubsubpb.PubsubMessage {
		return &pubsubpb.PubsubMessage{Attributes: map[string]string{key: value}}
	}
	for _, c := range []struct {
		name    string
		message *pubsubpb.PubsubMessage
		want    string
	}{
		{"data alone", &pubsubpb.PubsubMessage{Data: []byte("x")}, ""},
		{"attribute alone", attribute("k", ""), ""},
		{"at every limit", attribute(strings.Repeat("k", 256), strings.Repeat("v", 1024)), ""},
		{"a client library's attribute", attribute("googclient_traceparent", "x"), ""},
		{"nothing", &pubsubpb.PubsubMessage{OrderingKey: "k"}, "neither data nor attributes"},
		{"101 attributes", &pubsubpb.PubsubMessage{Attributes: many}, "has 101 attributes: Pub/Sub takes at most 100"},
		{"no name", attribute("", "x"), "empty name"},
		{"long name", attribute(strings.Repeat("k", 257), ""), "names of at most 256 bytes"},
		{"reserved name", attribute("google", ""), "begin with goog"},
		{"long value", attribute("k", strings.Repeat("v", 1025)), "values of at most 1024 bytes"},
		{"long ordering key", &pubsubpb.PubsubMessage{Data: []byte("x"), OrderingKey: strings.Repeat("k", 1025)}, "ordering key has 1025 bytes"},
		{"large", &pubsubpb.PubsubMessage{Data: make([]byte, 10_000_000)}, "takes at most 10000000"},
	} {
		err := Check(c.message)
		if (c.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
