// Package telemetrygatewayv1 holds the generated bindings of Telemetry
// Gateway's API. To change them, change telemetrygateway.proto and run
//
//	go generate ./internal/telemetrygateway/v1
//
// whose tools are pinned in the modules under tools.
package telemetrygatewayv1

//go:generate sh -c "cd ../../.. && go tool -modfile=tools/buf/go.mod buf generate"
