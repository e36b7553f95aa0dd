package logging

import (
	"io"
	"log"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"google.golang.org/grpc/grpclog"
)

// quietVariables make a library print requests and responses to standard error, with
// events and credentials in them: Google's clients, and Sentry's.
var quietVariables = []string{"GOOGLE_SDK_GO_LOGGING_LEVEL", "SENTRYGODEBUG"}

// QuietLibraries switches off the libraries' own logs, because they may contain anything
// that was sent. Libraries also return failures as errors, which the worker logs itself.
// Call it before any of them is used.
func QuietLibraries() error {
	for _, variable := range quietVariables {
		if err := os.Unsetenv(variable); err != nil {
			return err
		}
	}
	// GRPC_GO_LOG_SEVERITY_LEVEL and the like.
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	// It prints the variables that it cannot read.
	otel.SetLogger(logr.Discard())
	quietStandardLog()
	return nil
}

// SetDefault makes libraries that use log/slog write to the logger. It leaves the standard
// library's log package silent.
func SetDefault(l *slog.Logger) {
	slog.SetDefault(l)
	quietStandardLog()
}

// quietStandardLog discards the standard library's log. net/http writes to it, and with
// GODEBUG=http2debug=2 writes every frame. slog.SetDefault redirects that log, so it must
// be discarded again afterwards.
func quietStandardLog() { log.SetOutput(io.Discard) }
