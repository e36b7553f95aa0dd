package dlqcmd

import (
	"fmt"

	"github.com/sourcegraph/telemetry-relay/config"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
)

// servicesCheck compares the services list of this command with that of the running
// worker.
type servicesCheck struct {
	own    string // the digest of this command's list
	source string // where this command's list is from
	// anyway allows another list than the running worker's.
	anyway bool
	say    func(format string, args ...any)
}

// servicesSource says where the services list of the settings is from.
func servicesSource(cfg *config.Config) string {
	switch {
	case cfg.ServicesFile != "":
		return "WORKER_SERVICES_FILE"
	case cfg.ServicesYAML != "":
		return "WORKER_SERVICES"
	}
	return "the list that this binary was built with"
}

// compare says which services list the events are checked with, and compares it with
// that of the running worker: the worker of the newest rejection. With another list the
// check would prove nothing, so that a difference is an error. It is none with
// --services-anyway, nor if all selected events were rejected because of the list: then a
// new list is the remedy.
func (c servicesCheck) compare(reasons map[event.Reason]int, running dlq.Worker) error {
	if len(reasons) == 0 {
		return nil
	}
	c.say("worker: events are checked with the services list %s, from %s", c.own, c.source)
	switch running.ServicesDigest {
	case "":
		c.say("worker: which services list the running worker has is not known: no message in the queue says it")
		return nil
	case c.own:
		return nil
	}
	difference := fmt.Sprintf("the running worker has another services list, %s: it rejected an event with that list at %s", running.ServicesDigest, shortTime(running.RejectedAt))
	if onlyListReasons(reasons) {
		c.say("worker: note: %s. Deploy the list %s before the replay, or the events come back", difference, c.own)
		return nil
	}
	if c.anyway {
		c.say("worker: warning: %s", difference)
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
