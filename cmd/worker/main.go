// Command worker relays telemetry events from Pub/Sub to Telemetry Gateway.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/sourcegraph/telemetry-relay/cmd/worker/internal/command"
	"github.com/sourcegraph/telemetry-relay/internal/logging"
)

func main() {
	if err := logging.QuietLibraries(); err != nil {
		fmt.Fprintf(os.Stderr, "worker: %v\n", err)
		os.Exit(command.ExitFailed)
	}
	ctx, stop := signalContext()
	status := run(ctx, command.Env{
		Args:   os.Args,
		Vars:   os.Environ(),
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
	})
	stop()
	os.Exit(status)
}

// signalContext ends with the first SIGINT, SIGTERM or SIGHUP; a second one ends
// the process at once.
func signalContext() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	// A dropped connection must not leave messages leased. With nohup, SIGHUP is ignored.
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(command.ExitFailed)
	}()
	return ctx, cancel
}
