// Package recorder records telemetry events ("user did X") for a service, in one
// line and without making it wait:
//
//	rec.RecordBestEffort(ctx, "cody.hover", "shown", recorder.Metadata{"tier": 1})
//
// A [Recorder] is made once and shared. It checks an event with the very code
// with which the relay will decode it, puts it into a bounded buffer and returns;
// publishing to the Pub/Sub topic, in batches and with retries, happens behind.
// [Recorder.Close] publishes what is left.
//
// # What is filled in
//
// The event's id (a UUIDv7), its timestamp, the id of the current OpenTelemetry
// trace, and who records: service, environment and version. Users and clients are
// best taken from the request by a middleware, with [ContextWith].
//
// # What can still go wrong
//
// An event that Record has taken is never rejected by a relay of the same version
// or a later one for its form or its size. The recorder cannot foresee:
//   - what services.yaml allows: whether the service may publish at all, for this
//     environment, this feature, with private metadata (the event may be rejected,
//     or relayed without its private metadata). `worker publish --check` and
//     recordertest.WithServices check against the file;
//   - an event that the gateway itself refuses;
//   - a Pub/Sub that is away for longer than the buffer or Config.RetryFor lasts.
//     The log has a warning after 30 s, with the error of the last try. Events that
//     are lost in the end are counted, logged at most once a minute, and reported
//     by Flush and Close.
//
// # Compatibility
//
// The package follows semantic versioning together with the relay; CHANGES.md has
// each change of the API, and what to use instead. Messages say
// which version of the contract they follow (attribute schema_version, now 1);
// docs/publishing.md has the contract itself and what it promises.
package recorder
