package dlqcmd

import (
	"fmt"

	"github.com/schollz/progressbar/v3"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// showBar shows a progress bar on a terminal until hideBar, in place of another.
// Without a total, -1, it has no remaining time; without a unit, no rate.
func (d *desk) showBar(what string, total float64, unit string) {
	d.hideBar()
	if !d.watched() {
		return
	}
	opts := []progressbar.Option{
		progressbar.OptionSetWriter(terminal.Own(d.env.Stderr)), progressbar.OptionSetDescription(what),
		// The library's own ticker would write whenever it likes.
		progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionClearOnFinish(), progressbar.OptionUseANSICodes(true),
	}
	if unit != "" {
		opts = append(opts, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit))
	}
	d.bar = progressbar.NewOptions64(int64(total), opts...)
	_ = d.bar.RenderBlank() // its clock begins; as all of it, it is only for show
}

// watched reports whether somebody sees a bar. On one terminal it and the results
// would disturb each other.
func (d *desk) watched() bool {
	return terminal.Is(d.env.Stderr) && (!d.streams || !terminal.Is(d.env.Stdout))
}

// advance moves the bar on.
func (d *desk) advance(n int) {
	if d.bar != nil {
		_ = d.bar.Add(n)
	}
}

// describe changes what the bar says.
func (d *desk) describe(what string) {
	if d.bar != nil {
		d.bar.Describe(what)
	}
}

// hideBar takes the bar away.
func (d *desk) hideBar() {
	if d.bar != nil {
		_ = d.bar.Finish()
		d.bar = nil
	}
}

// say tells something on a line of its own.
func (d *desk) say(format string, args ...any) {
	if d.bar != nil {
		_ = d.bar.Clear()
	}
	fmt.Fprintf(d.env.Stderr, format+"\n", args...)
}
