// Package telemetrygatewayv1 holds the generated bindings of Telemetry
// Gateway's API. To change them, change telemetrygateway.proto and run
//
//	go generate ./...
//
// which needs nothing but Go: the generators are pinned in the tools module.
package telemetrygatewayv1

//go:generate go -C ../../../tools run ./protogen ../internal/telemetrygateway/v1
