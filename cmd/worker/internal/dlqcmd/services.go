package dlqcmd

import (
	"fmt"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// servicesSource says where the services list of this command is from.
func (d *session) servicesSource() string {
	switch {
	case d.cfg.ServicesFile != "":
		return "WORKER_SERVICES_FILE"
	case d.cfg.ServicesYAML != "":
		return "WORKER_SERVICES"
	}
	return "the list that this binary was built with"
}

// checkServices says which services list the events are checked with, and compares it
// with that of the running worker: the worker of the newest rejection. With another
// list the check would prove nothing, so that a difference is an error. It is none
// with --services-anyway, nor if all selected events were rejected because of the
// list: then a new list is the remedy.
func (d *session) checkServices(reasons map[event.Reason]int, running dlq.Worker) error {
	if len(reasons) == 0 {
		return nil
	}
	own := d.cfg.Services.Digest()
	d.say("worker: events are checked with the services list %s, from %s", own, d.servicesSource())
	switch running.ServicesDigest {
	case "":
		d.say("worker: which services list the running worker has is not known: no message in the queue says it")
		return nil
	case own:
		return nil
	}
	difference := fmt.Sprintf("the running worker has another services list, %s: it rejected an event with that list at %s", running.ServicesDigest, shortTime(running.RejectedAt))
	if onlyListReasons(reasons) {
		d.say("worker: note: %s. Deploy the list %s before the replay, or the events come back", difference, own)
		return nil
	}
	if d.servicesAnyway {
		d.say("worker: warning: %s", difference)
		return nil
	}
	return fmt.Errorf("%s. Set WORKER_SERVICES or WORKER_SERVICES_FILE as the worker has it, or use --services-anyway", difference)
}

// onlyListReasons reports whether a change of services.yaml is the remedy for all
// selected events.
func onlyListReasons(reasons map[event.Reason]int) bool {
	for reason := range reasons {
		if row, _ := dlq.FindReason(reason); row.Fault != event.AtServices {
			return false
		}
	}
	return true
}
