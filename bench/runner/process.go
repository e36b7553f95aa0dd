package runner

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sourcegraph/telemetry-relay/bench/load"
)

// server is one of the benchmark's servers, a process of its own.
type server struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	addr   string
}

// startServer starts this very program in the role of a server.
func startServer(ctx context.Context, role string, plan load.Plan) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	argument, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, role, string(argument))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &server{cmd: cmd, stdin: stdin, stdout: bufio.NewReader(stdout)}
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("start the %s server: %w", role, err)
	}
	s.addr = strings.TrimSpace(line)
	return s, nil
}

// finish ends the server and decodes its report.
func (s *server) finish(report any) error {
	if err := s.stdin.Close(); err != nil {
		return err
	}
	if err := json.NewDecoder(s.stdout).Decode(report); err != nil {
		return err
	}
	return s.cmd.Wait()
}

// usage is the resources that the kernel has counted for an ended process.
type usage struct {
	CPU    float64 // seconds
	PeakMB float64 // resident
	Wall   float64 // seconds
	// Submitted is how many events a worker says that it has submitted.
	Submitted int
}

// consume runs a consumer to its end. A worker that could not do its work exits with status
// 1, which is no error if mayFail is set.
func consume(ctx context.Context, environ []string, mayFail bool, path string, arguments ...string) (usage, error) {
	cmd := exec.CommandContext(ctx, path, arguments...)
	cmd.Env = environ
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Run(); err != nil && (!mayFail || cmd.ProcessState.ExitCode() != 1) {
		return usage{}, fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(path), strings.Join(arguments, " "), err, stdout.String(), stderr.String())
	}
	u := usage{
		CPU:  (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(),
		Wall: time.Since(began).Seconds(),
	}
	if r, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.PeakMB = float64(r.Maxrss) / 1024 // KiB on Linux
	}
	var summary struct{ Submitted int }
	if json.Unmarshal([]byte(stdout.String()), &summary) == nil { // other consumers print none
		u.Submitted = summary.Submitted
	}
	return u, nil
}

// buildWorker builds the worker as the image does.
func buildWorker(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "worker")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.buildVersion=0.0.0-bench",
		"-o", path, "github.com/sourcegraph/telemetry-relay/cmd/worker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	return path, cmd.Run()
}
