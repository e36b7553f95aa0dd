package recorder_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sourcegraph/telemetry-relay/recorder"
)

// Features and actions are constants, so that all names can be found in the code.
const (
	featureHover = "cody.hover"
	actionShown  = "shown"
)

func Example() {
	ctx := context.Background()
	topic, show := exampleTopic() // a Pub/Sub for the example; in production Topic is enough

	rec, err := recorder.New(ctx, recorder.Config{
		Service:       recorder.Service{ID: "cody-gateway", Environment: "prod", Version: "1.2.3"},
		Topic:         topic.name,
		ClientOptions: topic.options,
	})
	if err != nil {
		// The recorder is nil, which does nothing: a service need not end for this.
		slog.Error("no telemetry", "error", err)
	}

	rec.RecordBestEffort(ctx, featureHover, actionShown, recorder.Metadata{"tier": 1, "cached": recorder.Bool(true)})

	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := rec.Close(ctx); err != nil {
		slog.Warn("telemetry was lost", "error", err)
	}
	show()
	// Output:
	// service_id=cody-gateway service_environment=prod service_version=1.2.3: cody.hover/shown map[cached:1 tier:1]
}

func ExampleRecorder_Record_invalid() {
	rec, done := exampleRecorder()
	defer done()

	err := rec.Record(context.Background(), "Cody_Hover", actionShown)
	if invalid, ok := errors.AsType[*recorder.InvalidError](err); ok {
		fmt.Println(invalid.Reason)
		fmt.Println(invalid.Detail)
	}
	// Output:
	// invalid_event
	// feature: expected 2 to 64 bytes of the form ^[a-z][a-zA-Z-\.]+$, got "Cody_Hover"
}

func ExampleNewNoop() {
	telemetryIsOff := true
	var rec *recorder.Recorder
	if telemetryIsOff {
		rec = recorder.NewNoop()
	}
	fmt.Println(rec.Record(context.Background(), featureHover, actionShown))
	// Output: <nil>
}

func ExampleFeature_Check() {
	fmt.Println(recorder.Feature(featureHover).Check() == nil)
	fmt.Println(recorder.Feature("v2").Check() == nil)
	// Output:
	// true
	// false
}

// userOf stands for the service's own authentication.
func userOf(r *http.Request) recorder.User {
	return recorder.User{SAMSExternalID: r.Header.Get("X-Example-Sams-User")}
}

// withTelemetry is a middleware: every event of the request says who made it and
// with what. The trace comes from the OpenTelemetry span that otelhttp, around it,
// has put into the context.
func withTelemetry(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := recorder.ContextWith(r.Context(),
			userOf(r),
			recorder.Client{Name: r.Header.Get("X-Example-Client"), Version: r.Header.Get("X-Example-Client-Version")})
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// The user's client talks to the service's backend; the backend adds what it knows
// and publishes. No client publishes itself.
func ExampleContextWith_http() {
	rec, done := exampleRecorder()
	hover := func(w http.ResponseWriter, r *http.Request) {
		rec.RecordBestEffort(r.Context(), featureHover, actionShown)
		w.WriteHeader(http.StatusNoContent)
	}
	handler := withTelemetry(http.HandlerFunc(hover))

	r := httptest.NewRequest(http.MethodPost, "/hover", nil)
	r.Header.Set("X-Example-Sams-User", "018d-user")
	r.Header.Set("X-Example-Client", "VSCode.Cody")
	r.Header.Set("X-Example-Client-Version", "1.84.0")
	handler.ServeHTTP(httptest.NewRecorder(), r)

	done()
	// Output:
	// cody.hover/shown user=018d-user client=VSCode.Cody 1.84.0
}

// telemetryInterceptor is withTelemetry for gRPC.
func telemetryInterceptor(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		if user := md.Get("x-example-sams-user"); len(user) > 0 {
			ctx = recorder.ContextWith(ctx, recorder.User{SAMSExternalID: user[0]})
		}
	}
	return handler(ctx, req)
}

func ExampleContextWith_grpc() {
	rec, done := exampleRecorder()
	hover := func(ctx context.Context, _ any) (any, error) {
		return nil, rec.Record(ctx, featureHover, actionShown)
	}

	// As grpc.NewServer(grpc.ChainUnaryInterceptor(telemetryInterceptor)) does:
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs("x-example-sams-user", "018d-user"))
	_, err := telemetryInterceptor(ctx, nil, nil, hover)

	done()
	fmt.Println(err)
	// Output:
	// cody.hover/shown user=018d-user
	// <nil>
}
