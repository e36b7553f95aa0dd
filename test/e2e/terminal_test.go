package e2e_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminalWorker is a worker at a pseudo-terminal. Its stdout is a pipe.
type terminalWorker struct {
	*process
	screen *os.File
}

// startAtTerminal starts the worker at a pseudo-terminal.
func startAtTerminal(t *testing.T, environ []string, args ...string) *terminalWorker {
	t.Helper()
	screen, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	s := &terminalWorker{&process{t: t, cmd: exec.Command(workerBinary, args...), done: make(chan struct{}), started: time.Now()}, screen}
	s.cmd.Env, s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = append(environ, "TERM=xterm"), tty, &s.stdout, tty
	// Typed characters reach the worker as from a shell: Ctrl-C is a signal.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tty.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		part := make([]byte, 4096)
		for {
			n, err := screen.Read(part)
			_, _ = s.stderr.Write(part[:n])
			if err != nil {
				return // the worker has ended
			}
		}
	}()
	go func() {
		defer close(s.done)
		_ = s.cmd.Wait() // the test checks the status
		<-read
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it may have ended
		<-s.done
		screen.Close()
		if t.Failed() {
			t.Logf("worker %s: status %d\nstdout:\n%s\nscreen:\n%q", strings.Join(args, " "), s.cmd.ProcessState.ExitCode(), clip(s.stdout.String()), clip(s.stderr.String()))
		}
	})
	return s
}

const ctrlC = "\x03"

func (s *terminalWorker) types(text string) {
	s.t.Helper()
	if _, err := s.screen.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// interrupt waits for something on the screen, and then types Ctrl-C.
func (s *terminalWorker) interrupt(at string) result {
	s.t.Helper()
	s.says(at)
	s.types(ctrlC)
	return s.wait()
}
