package main

import (
	"io"
	"slices"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/sourcegraph/telemetry-relay/internal/dlq"
	"github.com/sourcegraph/telemetry-relay/internal/event"
	"github.com/sourcegraph/telemetry-relay/internal/logging"
)

// painter colours what is for a terminal; the zero value leaves it as it is.
type painter struct{ on bool }

// painter returns one for out. See https://no-color.org.
func (env environment) painter(out io.Writer) painter {
	return painter{on: logging.Terminal(out) && env.lookup("NO_COLOR") == "" && env.lookup("TERM") != "dumb"}
}

var (
	colourHead = text.Colors{text.Bold}
	colourDim  = text.Colors{text.Faint}
	colourBad  = text.Colors{text.FgRed, text.Bold}
	colourHelp = text.Colors{text.FgGreen}
	// What the worker rejects is the event's fault; else it is unknown whose.
	colourEvent = text.Colors{text.FgRed}
	colourOther = text.Colors{text.FgYellow}
)

func (p painter) paint(c text.Colors, s string) string {
	if !p.on || s == "" {
		return s
	}
	return c.Sprint(s)
}

// reason paints a text that stands for a reason.
func (p painter) reason(reason, s string) string {
	others := []event.Reason{event.GatewayRejected, event.GatewayRefused, dlq.ReasonAttempts, dlq.ReasonUnknown}
	if slices.Contains(others, event.Reason(reason)) {
		return p.paint(colourOther, s)
	}
	return p.paint(colourEvent, s)
}
