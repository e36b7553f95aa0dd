// Package recorder records telemetry events ("user did X") for a service, in one
// line and without making the service wait:
//
//	rec.RecordBestEffort(ctx, "cody.hover", "shown", recorder.Metadata{"tier": 1})
//
// A service makes one [Recorder] and shares it. The recorder checks an event with the
// code with which the relay decodes it, puts it into a bounded buffer and returns. A
// goroutine publishes events to the Pub/Sub topic, in batches and with retries.
// [Recorder.Close] publishes the remaining ones.
//
// # What is filled in
//
// The recorder fills in the event's id (a UUIDv7), its timestamp, the id of the current
// OpenTelemetry trace, and the service with its environment and version. Users and
// clients are best taken from the request by a middleware, with [ContextWith].
//
// # What can still go wrong
//
// A relay of the same version or a later one never rejects an event that Record has
// taken for its form or its size. The recorder cannot foresee:
//   - the rules of services.yaml: whether the service may publish at all, for this
//     environment, this event, with private metadata. The relay rejects an event that
//     they forbid, or relays it without the private metadata that they forbid. `worker
//     publish --check` and recordertest.WithServices check events against the file;
//   - an event that the gateway itself refuses;
//   - an outage of Pub/Sub that lasts longer than the buffer or Config.RetryFor. The
//     log has a warning after 30 s, with the error of the last try. Lost events are
//     counted, logged at most once a minute, and reported by Flush and Close.
//
// # Compatibility
//
// The package follows semantic versioning together with the relay. CHANGES.md has each
// change of the API, and what to use instead. Messages name the version of the contract
// that they follow (attribute schema_version, now 1). docs/publishing.md has the
// contract and its guarantees.
package recorder
