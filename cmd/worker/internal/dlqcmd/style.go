package dlqcmd

import (
	"io"
	"slices"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// painter colours what is for a terminal; the zero value leaves it as it is.
type painter struct{ on bool }

// painter returns one for out. See https://no-color.org.
func (env commands) painter(out io.Writer) painter {
	return painter{on: terminal.Is(out) && env.Lookup("NO_COLOR") == "" && env.Lookup("TERM") != "dumb"}
}

// The styles, as SGR parameters.
const (
	colourHead = "1"    // bold
	colourDim  = "2"    // faint
	colourBad  = "31;1" // red and bold
	colourHelp = "32"   // green
	// What the worker rejects is the event's fault; else it is unknown whose.
	colourEvent = "31" // red
	colourOther = "33" // yellow
)

func (p painter) paint(style, s string) string {
	if !p.on {
		style = ""
	}
	return terminal.Paint(style, s)
}

// reason paints a text that stands for a reason.
func (p painter) reason(reason, s string) string {
	others := []event.Reason{event.GatewayRejected, event.GatewayRefused, dlq.ReasonAttempts, dlq.ReasonUnknown}
	if slices.Contains(others, event.Reason(reason)) {
		return p.paint(colourOther, s)
	}
	return p.paint(colourEvent, s)
}
