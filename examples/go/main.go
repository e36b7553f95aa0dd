// Command go is a service that records telemetry: a web server that says hello,
// and records that it did.
//
//	worker local --keep-running   # and export the variables that it prints
//	go run ./examples/go
//	curl -H 'X-Sams-User: 018d21f2' localhost:8080
//
// On an emulator without `worker local`, `worker setup` makes the topic.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sourcegraph/telemetry-relay/recorder"
	"github.com/sourcegraph/telemetry-relay/recorder/recorderprom"
)

const (
	featureHello = "cody.hello"
	actionSaid   = "said"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		slog.Error("ended", "error", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rec, err := recorder.New(ctx, recorder.Config{
		Service: recorder.Service{ID: "cody-analytics", Environment: "dev", Version: "1.2.3"},
		Topic:   os.Getenv("TELEMETRY_TOPIC"),
	})
	if err != nil {
		// No reason to end: a nil recorder does nothing.
		slog.Warn("there will be no telemetry", "error", err)
	}
	if err := recorderprom.Register(prometheus.DefaultRegisterer, rec); err != nil {
		slog.Warn("there will be no metrics of telemetry", "error", err)
	}

	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		rec.RecordBestEffort(r.Context(), featureHello, actionSaid, recorder.Metadata{"pathLength": recorder.Number(len(r.URL.Path))})
		fmt.Fprintln(w, "hello")
	})
	addr := os.Getenv("ADDR")
	if addr == "" {
		addr = "localhost:8080"
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return errors.Join(err, rec.Close(ctx))
	}
	slog.Info("listening", "addr", listener.Addr())
	server := &http.Server{Handler: withUser(mux), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	select {
	case err = <-failed:
	case <-ctx.Done():
		err = nil
	}
	// First no more requests, then what they have recorded.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(ctx), rec.Close(ctx))
}

// withUser says of every event of a request who made it. A real service asks its
// own authentication.
func withUser(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := recorder.ContextWith(r.Context(), recorder.User{SAMSExternalID: r.Header.Get("X-Sams-User")})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}
