package otelexport

import (
	"context"
	"errors"
	"net/http"
	"path"
	"strings"
	"time"

	"cloud.google.com/go/compute/metadata"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	semconv "go.opentelemetry.io/otel/semconv/v1.41.0"

	"github.com/sourcegraph/telemetry-relay/config"
)

// describe returns the resource that reports. OTEL_RESOURCE_ATTRIBUTES and
// OTEL_SERVICE_NAME override it.
func describe(ctx context.Context, opts Options, google bool) (*resource.Resource, error) {
	c := opts.Config
	attributes := []attribute.KeyValue{
		semconv.ServiceName(opts.Service),
		semconv.ServiceVersion(opts.Version),
		semconv.ServiceInstanceID(instanceID(c)),
		semconv.DeploymentEnvironmentNameKey.String(c.Environment),
	}
	if google {
		// Google Cloud requires the project and the region.
		attributes = append(attributes, attribute.String("gcp.project_id", c.TelemetryProject()))
		if c.MSP {
			attributes = append(attributes, semconv.CloudProviderGCP, semconv.CloudPlatformGCPCloudRun)
		}
		if region := region(ctx); region != "" {
			attributes = append(attributes, semconv.CloudRegion(region))
		}
	}
	about, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attributes...),
		resource.WithFromEnv(),
	)
	if errors.Is(err, resource.ErrPartialResource) || errors.Is(err, resource.ErrSchemaURLConflict) {
		opts.Logger.Warn("OTEL_RESOURCE_ATTRIBUTES could not be read in full") // the error quotes it
		err = nil
	}
	return about, err
}

// instanceID differs between executions, so that each has series of its own. If two
// executions shared a series, it would look like a counter that is reset.
func instanceID(c *config.Config) string {
	if c.CloudRunExecution != "" {
		id := []string{c.CloudRunExecution}
		for _, part := range []string{c.CloudRunTask, c.CloudRunAttempt} {
			if part == "" {
				part = "0"
			}
			id = append(id, part)
		}
		return strings.Join(id, "/")
	}
	return uuid.NewString()
}

func instance(about *resource.Resource) string {
	id, _ := about.Set().Value(semconv.ServiceInstanceIDKey)
	return id.AsString()
}

// metadataTimeout bounds the request for the region, which Cloud Run answers at once.
const metadataTimeout = 2 * time.Second

// region asks Cloud Run for the region; empty without an answer.
func region(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	client := &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	defer client.CloseIdleConnections()
	// projects/NUMBER/regions/REGION
	name, err := metadata.NewWithOptions(&metadata.Options{Client: client}).GetWithContext(ctx, "instance/region")
	if err != nil {
		return ""
	}
	return path.Base(name)
}
