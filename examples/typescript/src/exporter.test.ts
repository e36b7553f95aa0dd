// Tests of the exporter. TELEMETRY_TOPIC is a topic of the emulator at
// PUBSUB_EMULATOR_HOST, event.schema.json lies in the current directory.
//
//   npm run build && node --test --test-force-exit dist/exporter.test.js

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import type { TelemetryEventInput } from "@sourcegraph/telemetry";
import { LostEvents, type Options, PubSubTelemetryExporter } from "./exporter.js";

const schema = JSON.parse(readFileSync("event.schema.json", "utf8")) as object;

const exporter = (more: Partial<Options> = {}) =>
  new PubSubTelemetryExporter({
    topic: process.env.TELEMETRY_TOPIC ?? "",
    service: { id: "cody-analytics", environment: "dev" },
    schema,
    ...more,
  });

const event = (more: Partial<TelemetryEventInput> = {}): TelemetryEventInput => ({
  feature: "cody.hover",
  action: "shown",
  source: { client: "VSCode.Cody", clientVersion: "1.84.0" },
  parameters: { version: 1, metadata: [{ key: "tier", value: 1 }], privateMetadata: { half: "\ud800" } },
  marketingTracking: { cohortID: "c", url: null },
  ...more,
});

/** Runs with another PUBSUB_EMULATOR_HOST, which the client reads when it is made. */
function away(more: Partial<Options>): PubSubTelemetryExporter {
  const host = process.env.PUBSUB_EMULATOR_HOST;
  process.env.PUBSUB_EMULATOR_HOST = "127.0.0.1:1";
  try {
    return exporter(more);
  } finally {
    process.env.PUBSUB_EMULATOR_HOST = host;
  }
}

test("publishes in batches, and leaves out what the relay would reject", async () => {
  const e = exporter();
  await e.exportEvents(Array.from({ length: 700 }, () => event()));
  const bad = [
    event({ feature: "Cody" }),
    event({ parameters: { version: 1, metadata: [{ key: "ratio", value: Number.NaN }] } }),
    event({ parameters: { version: 1, metadata: [{ key: "tier", value: "1" }] } }),
    event(),
  ];
  await assert.rejects(e.exportEvents(bad), (error) => error instanceof LostEvents && /3 of 4 events were lost; the last one: cody.hover\/shown: \/metadata\/tier must be number/.test(error.message));
  assert.deepEqual(await e.close(30_000), { published: 701, failed: 0, dropped: 0, invalid: 3, waiting: 0 });
  await assert.rejects(e.exportEvents([event()]), /the exporter is closed/);
});

test("bounds what waits while Pub/Sub is away, and closes in time", async () => {
  const e = away({ maxWaiting: 2, retryForMs: 600_000 });
  const exported = e.exportEvents([event(), event(), event()]);
  exported.catch(() => {}); // after the end
  assert.equal(e.stats.dropped, 1);
  const began = Date.now();
  const stats = await e.close(500);
  assert.ok(Date.now() - began < 10_000);
  assert.equal(stats.waiting, 2);
});

test("says why events failed", async () => {
  await assert.rejects(away({ retryForMs: 500 }).exportEvents([event()]), (error) => error instanceof LostEvents && /ECONNREFUSED|UNAVAILABLE|No connection|exceeded/.test(error.message));
  const elsewhere = exporter({ topic: `${process.env.TELEMETRY_TOPIC}-elsewhere`, retryForMs: 500 });
  await assert.rejects(elsewhere.exportEvents([event()]), (error) => error instanceof LostEvents && /NOT_FOUND|not found/i.test(error.message));
  assert.equal(elsewhere.stats.failed, 1);
});

test("refuses a topic that is no full name", () => {
  assert.throws(() => exporter({ topic: "telemetry-events" }), /expected projects\/PROJECT\/topics\/TOPIC/);
});
