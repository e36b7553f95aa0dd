package e2e_test

import (
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// strictEnv is an env with the embedded Pub/Sub, which behaves as the service does
// where the emulator is kinder: what a stream delivers is leased for ten minutes
// until its first ModifyAckDeadline, for example.
type strictEnv struct {
	*env
	pubsub *pubsubserver.Server
}

// newStrictEnv makes a test parallel and builds everything around the worker. The
// options are those of the worker's subscription.
func newStrictEnv(t *testing.T, opts ...pubsubserver.SubscriptionOption) strictEnv {
	t.Helper()
	t.Parallel()
	server, err := pubsubserver.Start(t.Context(), pubsubserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := strictEnv{newEnvOn(t, server.Addr()), server}
	t.Cleanup(func() { h.check(server.Close()) })
	for _, err := range []error{
		server.CreateTopic(h.topic(topicID)), server.CreateTopic(h.topic(dlqID)),
		server.CreateSubscription(h.subscription(subID), h.topic(topicID), opts...),
		server.CreateSubscription(h.subscription(dlqSubID), h.topic(dlqID)),
	} {
		h.must(err)
	}
	return h
}

// settled reports whether everything that was published has been acknowledged.
func (h strictEnv) settled() bool {
	s := h.pubsub.Stats(h.subscription(subID))
	return s.Backlog == 0 && s.Leased == 0
}
