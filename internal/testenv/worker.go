package testenv

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Build has the options of a worker that is built for tests.
type Build struct {
	// Version is the version of the worker; "dev" if empty.
	Version string
	// RejectSpan and PullWait shorten intervals that are made for production; see
	// rejectSpan and pullWait in cmd/worker. Empty leaves them as they are.
	RejectSpan, PullWait string
	// Race builds it with the race detector.
	Race bool
}

// Worker builds the worker into a new directory. It returns its path, and a function that
// removes the directory.
func (b Build) Worker(ctx context.Context) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "worker-under-test-")
	if err != nil {
		return "", nil, err
	}
	remove = func() { _ = os.RemoveAll(dir) }
	path = filepath.Join(dir, "worker")
	var flags []string
	for name, value := range map[string]string{"buildVersion": b.Version, "rejectSpan": b.RejectSpan, "pullWait": b.PullWait} {
		if value != "" {
			flags = append(flags, fmt.Sprintf("-X main.%s=%s", name, value))
		}
	}
	//nolint:gosec // the arguments are the test's own
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", fmt.Sprintf("-race=%t", b.Race), "-ldflags="+strings.Join(flags, " "),
		"-o", path, "github.com/sourcegraph/telemetry-relay/cmd/worker")
	if output, err := build.CombinedOutput(); err != nil {
		remove()
		return "", nil, fmt.Errorf("build the worker: %w\n%s", err, output)
	}
	return path, remove, nil
}
