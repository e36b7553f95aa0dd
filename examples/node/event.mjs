import { randomBytes } from "node:crypto";

// Who records. services.yaml of the relay must list the service.
export const attributes = {
  schema_version: "1",
  service_id: "cody-analytics",
  service_environment: "dev",
  service_version: "1.2.3",
};

// uuid7 is a UUID that begins with the time, so that ids sort by it.
function uuid7() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = (bytes[6] & 0x0f) | 0x70; // version
  bytes[8] = (bytes[8] & 0x3f) | 0x80; // variant
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// event completes an event. JSON.stringify turns NaN and Infinity into null, and
// the relay rejects a null in metadata: only finite numbers belong there.
export function event(feature, action, more = {}) {
  return { feature, action, id: uuid7(), timestamp: new Date().toISOString(), ...more };
}

export const example = () =>
  event("cody.hover", "shown", {
    metadata: { tier: 1, durationMs: 12.5 },
    privateMetadata: { repository: "github.com/sourcegraph/example" },
    user: { samsExternalId: "018d21f2-0b8d-7a4e-8a53-3bfc4e0a5d37" },
  });
