package dlqcmd

import (
	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// maxKinds bounds the kinds of causes that are printed.
const maxKinds = 20

// skipReport says why messages stay in the queue: the first message of each cause at
// once, and the others as a number at the end.
type skipReport struct {
	say    func(format string, args ...any)
	counts map[string]int // by normalized cause
	order  []string
}

// add counts a message that stays in the queue.
func (r *skipReport) add(s *dlq.Stored, why error) {
	cause := dlq.SafeDetail(why.Error())
	kind := fault.Normalize(cause)
	if r.counts == nil {
		r.counts = map[string]int{}
	}
	if _, ok := r.counts[kind]; !ok {
		switch len(r.counts) {
		case maxKinds:
			kind = "other causes"
			if r.counts[kind] == 0 {
				r.order = append(r.order, kind)
			}
		default:
			r.order = append(r.order, kind)
			r.say("worker: %s is left: %s", nameOf(s), cause)
		}
	}
	r.counts[kind]++
}

// end prints the numbers of the causes with more than one message.
func (r *skipReport) end() {
	for _, kind := range r.order {
		if n := r.counts[kind]; n > 1 {
			r.say("worker: %s in all are left: %s", command.Comma(n), kind)
		}
	}
}
