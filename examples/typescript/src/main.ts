// Records telemetry events from TypeScript, with @sourcegraph/telemetry.
//
//   npm ci && npm run build
//   cp ../../docs/event.schema.json .
//   export PUBSUB_EMULATOR_HOST=localhost:8085 TELEMETRY_TOPIC=projects/my-project/topics/telemetry-events
//   node dist/main.js
//
// The topic must be there: run `worker setup` first, with the same PUBSUB_EMULATOR_HOST and
// GOOGLE_CLOUD_PROJECT. Without PUBSUB_EMULATOR_HOST it publishes to Google's Pub/Sub, with the
// credentials that the client finds.

import { readFileSync } from "node:fs";
import { TelemetryRecorderProvider } from "@sourcegraph/telemetry";
import { flushOnExit, PubSubTelemetryExporter } from "./exporter.js";

const exporter = new PubSubTelemetryExporter({
  topic: process.env.TELEMETRY_TOPIC ?? "",
  service: { id: "cody-analytics", environment: "dev", version: "1.2.3" },
  schema: JSON.parse(readFileSync("event.schema.json", "utf8")) as object,
  retryForMs: Number(process.env.RETRY_FOR_MS ?? 600_000),
});
const provider = new TelemetryRecorderProvider<"cody", "billable">(
  { client: "VSCode.Cody", clientVersion: "1.84.0" },
  exporter,
  [{ processEvent: (event) => void (event.timestamp = new Date().toISOString()) }],
  { bufferTimeMs: 100, bufferMaxSize: 500, errorHandler: (error) => console.error(String(error)) },
);
flushOnExit(provider, exporter, Number(process.env.FLUSH_MS ?? 8_000));
process.once("exit", () => console.log(JSON.stringify(exporter.stats)));

const recorder = provider.getRecorder();

// A service does this where something happens. It returns at once.
recorder.recordEvent("cody.hover", "shown", {
  version: 1,
  interactionID: "interaction-1",
  metadata: { tier: 1, durationMs: 12.5 },
  privateMetadata: { repository: "github.com/sourcegraph/example" },
  billingMetadata: { product: "cody", category: "billable" },
});

if (process.argv[2] === "--serve") {
  setInterval(() => {}, 1_000); // a server, until SIGTERM
  console.log("serving");
} else {
  provider.unsubscribe(); // its timer would keep the process running
}
