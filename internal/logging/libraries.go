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

// quietVariables have a library print requests and responses to standard error,
// with events, dead letters and credentials in them: Google's clients, and Sentry's.
var quietVariables = []string{"GOOGLE_SDK_GO_LOGGING_LEVEL", "SENTRYGODEBUG"}

// QuietLibraries switches off the libraries' own logs. What matters of a failure
// comes back as an error, and is logged here; the rest may hold anything that was
// sent. It must be called before any of them is used.
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

// SetDefault makes the logger the one of libraries that use log/slog, and of nothing
// else.
func SetDefault(l *slog.Logger) {
	slog.SetDefault(l)
	quietStandardLog()
}

// quietStandardLog switches off the standard library's log, to which net/http
// writes, and with GODEBUG=http2debug=2 every frame. slog.SetDefault switches it on.
func quietStandardLog() { log.SetOutput(io.Discard) }
