package dlqcmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/sourcegraph/telemetry-relay/internal/terminal"
)

// console is stderr: the progress bar of a command, and the messages for a person, which
// must not be written into the bar.
type console struct {
	stdout, stderr io.Writer
	// streams says that the command writes to stdout while it reads.
	streams bool
	bar     *progressbar.ProgressBar // nil if none is shown
}

// showBar shows a progress bar on a terminal until hideBar. A total of -1 is unknown:
// the bar has no remaining time. Without a unit it has no rate.
func (c *console) showBar(what string, total float64, unit string) {
	c.hideBar()
	if !c.watched() {
		return
	}
	opts := []progressbar.Option{
		progressbar.OptionSetWriter(terminal.Own(c.stderr)), progressbar.OptionSetDescription(what),
		// The library's own ticker would write into other messages.
		progressbar.OptionSetSpinnerChangeInterval(0), progressbar.OptionClearOnFinish(), progressbar.OptionUseANSICodes(true),
	}
	if unit != "" {
		opts = append(opts, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit))
	}
	c.bar = progressbar.NewOptions64(int64(total), opts...)
	_ = c.bar.RenderBlank() // starts its clock; an error to show progress is ignored, here and below
}

// watched reports whether a bar can be shown. The bar and results that are printed
// meanwhile would disturb each other on one terminal.
func (c *console) watched() bool {
	return terminal.Is(c.stderr) && (!c.streams || !terminal.Is(c.stdout))
}

// advance moves the bar on.
func (c *console) advance(n int) {
	if c.bar != nil {
		_ = c.bar.Add(n)
	}
}

// describe changes what the bar says.
func (c *console) describe(what string) {
	if c.bar != nil {
		c.bar.Describe(what)
	}
}

// hideBar removes the bar.
func (c *console) hideBar() {
	if c.bar != nil {
		_ = c.bar.Finish()
		c.bar = nil
	}
}

// say prints a message to stderr. It removes the bar before.
func (c *console) say(format string, args ...any) {
	if c.bar != nil {
		_ = c.bar.Clear()
	}
	fmt.Fprintf(c.stderr, format+"\n", args...)
}

// wait waits, and shows a bar that fills meanwhile.
func (c *console) wait(ctx context.Context, what string, d time.Duration) error {
	c.showBar(what, d.Seconds(), "")
	defer c.hideBar()
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-end.C:
			return nil
		case <-tick.C:
			c.advance(1)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// makePrivate takes the permissions of others off a file to which a shell redirects
// private data.
func (c *console) makePrivate(out io.Writer) {
	w, ok := out.(*terminal.Writer)
	if !ok {
		return
	}
	switch changed, err := w.Private(); {
	case err != nil:
		c.say("worker: warning: the output is a file that others can read: %v", err)
	case changed:
		c.say("worker: the output is a file that others could read; from now on only you can")
	}
}
