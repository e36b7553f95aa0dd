package dlqcmd

import (
	"io"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// styler colours text for a terminal; the zero value does not.
type styler struct{ on bool }

// stylerFor returns a styler for out. See https://no-color.org.
func stylerFor(env command.Env, out io.Writer) styler {
	return styler{on: terminal.Is(out) && env.Lookup("NO_COLOR") == "" && env.Lookup("TERM") != "dumb"}
}

// The styles, as SGR parameters.
const (
	colourHead = "1"    // bold
	colourDim  = "2"    // faint
	colourBad  = "31;1" // red and bold
	colourHelp = "32"   // green
	// The event is at fault if the worker rejects it; else the fault is unknown.
	colourEvent = "31" // red
	colourOther = "33" // yellow
)

func (p styler) paint(style, s string) string {
	if !p.on {
		style = ""
	}
	return terminal.Paint(style, s)
}

// reason paints a text that stands for a reason. Red is a fault of a publisher or of
// services.yaml; yellow is any other.
func (p styler) reason(reason, s string) string {
	switch row, _ := dlq.FindReason(event.Reason(reason)); row.Fault {
	case event.AtGateway, event.AtOutage, event.AtStranger:
		return p.paint(colourOther, s)
	default:
		return p.paint(colourEvent, s)
	}
}
