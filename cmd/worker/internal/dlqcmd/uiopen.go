package dlqcmd

import (
	"bytes"
	"context"
	"errors"
	"html/template"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// openTimeout bounds how long a browser may take to start.
const openTimeout = 15 * time.Second

// leadPage leads to an address.
var leadPage = template.Must(template.New("").Parse(`<!doctype html><title>Dead-letter queue</title><meta http-equiv="refresh" content="0;url={{.}}"><a href="{{.}}">Go on</a>
`))

// openBrowser opens an address in the person's browser. It returns when ctx has ended, and
// leaves no trace then. The browser gets a file that only the person can read, because
// other users of the machine see the arguments of every process, and the address admits
// the first browser that opens it.
func (root commands) openBrowser(ctx context.Context, address string) error {
	folder, err := os.MkdirTemp("", "dlq-ui-") // with mode 0700
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder) //nolint:errcheck // the system removes what is left of temporary files
	path := filepath.Join(folder, "open.html")
	var page bytes.Buffer
	if err := leadPage.Execute(&page, address); err != nil {
		return err
	}
	if err := os.WriteFile(path, page.Bytes(), 0o600); err != nil {
		return err
	}
	open := root.opts.OpenBrowser
	if open == nil {
		open = root.desktopOpen
	}
	starting, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	err = open(starting, path)
	<-ctx.Done() // the browser may read the file late
	return err
}

var errNoDesktop = errors.New("there is no desktop")

// desktopOpen opens a file with the program that the desktop has for it.
func (root commands) desktopOpen(ctx context.Context, path string) error {
	opener := []string{"xdg-open"}
	switch {
	case runtime.GOOS == "darwin":
		opener = []string{"open"}
	case runtime.GOOS == "windows":
		opener = []string{"rundll32", "url.dll,FileProtocolHandler"}
	case root.env.Lookup("DISPLAY") == "" && root.env.Lookup("WAYLAND_DISPLAY") == "":
		// Without a desktop, xdg-open would start a browser for terminals in this one.
		return errNoDesktop
	}
	return exec.CommandContext(ctx, opener[0], append(opener[1:], path)...).Run() //nolint:gosec // the path is a file of our own
}
