package dlqcmd

import (
	"bytes"
	"fmt"
	"maps"
	"sync/atomic"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
)

// replayAndReject runs a replay while a worker rejects the first `reject` of its events
// again. It returns how many events were published.
func (h *testQueue) replayAndReject(reject int, args ...string) (dlqResult, int) {
	h.t.Helper()
	var published atomic.Int64
	s := &shifted{onPublish: func(messages []*pubsubpb.PubsubMessage) {
		for _, m := range messages {
			n := published.Add(1)
			if int(n) > reject {
				continue
			}
			a := maps.Clone(m.GetAttributes())
			maps.Copy(a, map[string]string{
				"dlq_reason": "invalid_event", "dlq_detail": "no", "dlq_replays": a["replay_count"],
				"dlq_message_id": fmt.Sprint("again", n), "dlq_publish_time": "2026-11-20T11:00:00Z",
			})
			h.put(&pubsubpb.PubsubMessage{Data: m.GetData(), Attributes: a})
		}
	}}
	env := h.environment(args...)
	var stdout, stderr bytes.Buffer
	env.Stdout, env.Stderr = &stdout, &stderr
	env.Vars = append(env.Vars, "PUBSUB_EMULATOR_HOST="+h.shift(s))
	status := run(h.t.Context(), env)
	return dlqResult{status, stdout.String(), stderr.String()}, int(published.Load())
}
