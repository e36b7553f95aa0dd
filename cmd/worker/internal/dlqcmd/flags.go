package dlqcmd

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/fault"
)

// filterFlags are the filters of every command.
func filterFlags() []cli.Flag {
	moment := func(name, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Usage: usage, Validator: func(s string) error {
			_, err := dlq.ParseTime(s, time.Now())
			return err
		}}
	}
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "fault", Usage: "only those with the fault `ID` that stats prints, such as F-7c3a91; may be repeated, as may all that name something", Validator: faultIDs},
		&cli.StringSliceFlag{Name: "reason", Usage: "only those with the `REASON`, such as invalid_event", Validator: knownReasons},
		&cli.StringSliceFlag{Name: "service", Usage: "only those of the service `ID`"},
		&cli.StringSliceFlag{Name: "environment", Usage: "only those of the environment `ID`"},
		&cli.StringSliceFlag{Name: "feature", Usage: "only those of the `FEATURE`"},
		&cli.StringSliceFlag{Name: "action", Usage: "only those of the `ACTION`"},
		&cli.StringSliceFlag{Name: "event-id", Usage: "only the event `ID`"},
		&cli.StringSliceFlag{Name: "message-id", Usage: "only the message `ID`: the original one's or the dead-lettered message's"},
		&cli.BoolFlag{Name: "private", Usage: "only those with private data, or with what may be: unknown fields that hold text, data that cannot be read"},
		moment("since", "only those rejected since `TIME`: RFC 3339, a date (UTC), or how long ago, such as 2h or 7d"),
		moment("until", "only those rejected until `TIME`"),
		&cli.IntFlag{Name: "limit", Usage: "at most `N` of them; 0 means all", Validator: func(n int) error {
			if n < 0 {
				return fmt.Errorf("expected a number of messages, got %d", n)
			}
			return nil
		}},
	}
}

// knownReasons refuses a reason that no message can have, because a typing error would
// select nothing in silence.
func knownReasons(reasons []string) error {
	for _, reason := range reasons {
		if _, ok := dlq.FindReason(event.Reason(reason)); !ok {
			var known []string
			for _, row := range dlq.Reasons {
				known = append(known, string(row.Reason))
			}
			return fmt.Errorf("unknown reason %q; expected one of %s", reason, strings.Join(known, ", "))
		}
	}
	return nil
}

// faultIDs refuses a text that cannot be the id of a fault.
func faultIDs(ids []string) error {
	for _, id := range ids {
		if !fault.IsID(id) {
			return fmt.Errorf("expected the id of a fault as stats prints it, such as F-7c3a91, got %q", id)
		}
	}
	return nil
}

func formatFlag(formats ...string) cli.Flag {
	return &cli.StringFlag{Name: "output", Value: formats[0], Usage: fmt.Sprintf("one of %q", formats), Validator: func(s string) error {
		if slices.Contains(formats, s) {
			return nil
		}
		return fmt.Errorf("expected one of %q, got %q", formats, s)
	}}
}

func revealFlag() cli.Flag {
	return &cli.BoolFlag{Name: "reveal", Usage: "show also data that is or may be private; the audit log records it"}
}

// filterOf returns the filter of the flags. A range of time that is empty is a mistake.
func filterOf(c *cli.Command) (*dlq.Filter, error) {
	now := time.Now()
	moment := func(name string) time.Time {
		t, _ := dlq.ParseTime(c.String(name), now) // the flag's validator has seen it
		return t
	}
	f := &dlq.Filter{
		Faults:       c.StringSlice("fault"),
		Reasons:      c.StringSlice("reason"),
		Services:     c.StringSlice("service"),
		Environments: c.StringSlice("environment"),
		Features:     c.StringSlice("feature"),
		Actions:      c.StringSlice("action"),
		EventIDs:     c.StringSlice("event-id"),
		MessageIDs:   c.StringSlice("message-id"),
		Since:        moment("since"),
		Until:        moment("until"),
		Limit:        c.Int("limit"),
		Private:      c.Bool("private"),
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && f.Until.Before(f.Since) {
		return nil, command.Usagef("--since %s is later than --until %s: expected a range of time that begins before it ends", f.Since.UTC().Format(time.RFC3339), f.Until.UTC().Format(time.RFC3339))
	}
	return f, nil
}

// countFlag is a flag for a number that is not negative.
func countFlag(name string, value int, usage string) cli.Flag {
	return &cli.IntFlag{Name: name, Value: value, Usage: usage, Validator: func(n int) error {
		if n < 0 {
			return fmt.Errorf("expected at least 0, got %d", n)
		}
		return nil
	}}
}

func canaryWaitFlag() cli.Flag {
	return &cli.DurationFlag{Name: "canary-wait", Value: defaultCanaryWait, Usage: "the `TIME` that --canary waits, such as 20m: longer than a job's interval", Validator: func(d time.Duration) error {
		if d <= 0 {
			return fmt.Errorf("expected a duration such as 20m, got %v", d)
		}
		return nil
	}}
}

func auditFlag() cli.Flag {
	return &cli.StringFlag{Name: "audit-file", Usage: "append the audit records to `FILE` (default: telemetry-relay/audit.ndjson in the user's state folder)"}
}
