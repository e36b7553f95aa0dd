package e2e_test

import (
	"testing"

	"github.com/sourcegraph/telemetry-relay/internal/devstack/pubsubserver"
)

// strictEnv is an env with the embedded Pub/Sub, which behaves like the service where the
// emulator is less strict: for example, it leases each streamed message for ten minutes
// until its first ModifyAckDeadline.
type strictEnv struct {
	*env
	pubsub *pubsubserver.Server
}

// newStrictEnv makes a test parallel and starts the worker's environment. The options are
// for the worker's subscription.
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

// settled reports whether all published messages have been acknowledged.
func (h strictEnv) settled() bool {
	s := h.pubsub.Stats(h.subscription(subID))
	return s.Backlog == 0 && s.Leased == 0
}
