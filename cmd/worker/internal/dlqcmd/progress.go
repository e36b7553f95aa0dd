package dlqcmd

import (
	"fmt"

	"github.com/schollz/progressbar/v3"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// showBar shows a progress bar on a terminal until hideBar. A total of -1 is unknown:
// the bar has no remaining time. Without a unit it has no rate.
func (d *session) showBar(what string, total float64, unit string) {
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
	_ = d.bar.RenderBlank() // starts its clock; an error to show progress is ignored, here and below
}

// watched reports whether a bar can be shown. The bar and results that are printed
// meanwhile would disturb each other on one terminal.
func (d *session) watched() bool {
	return terminal.Is(d.env.Stderr) && (!d.streams || !terminal.Is(d.env.Stdout))
}

// advance moves the bar on.
func (d *session) advance(n int) {
	if d.bar != nil {
		_ = d.bar.Add(n)
	}
}

// describe changes what the bar says.
func (d *session) describe(what string) {
	if d.bar != nil {
		d.bar.Describe(what)
	}
}

// hideBar removes the bar.
func (d *session) hideBar() {
	if d.bar != nil {
		_ = d.bar.Finish()
		d.bar = nil
	}
}

// say prints a message to stderr. It removes the bar before.
func (d *session) say(format string, args ...any) {
	if d.bar != nil {
		_ = d.bar.Clear()
	}
	fmt.Fprintf(d.env.Stderr, format+"\n", args...)
}
