// Records a telemetry event from Node, without any dependency.
//
//   export PUBSUB_EMULATOR_HOST=localhost:8085 TELEMETRY_TOPIC=projects/my-project/topics/telemetry-events
//   node publish-rest.mjs
//
// The topic must be there: run `worker setup` first, with the same PUBSUB_EMULATOR_HOST and
// GOOGLE_CLOUD_PROJECT. Without PUBSUB_EMULATOR_HOST it publishes to Google's Pub/Sub, with ACCESS_TOKEN
// (such as that of `gcloud auth print-access-token`).

import { attributes, example } from "./event.mjs";

const { TELEMETRY_TOPIC, PUBSUB_EMULATOR_HOST, ACCESS_TOKEN } = process.env;

// publish publishes events in one request, at most 1000, and returns their message
// ids.
async function publish(...events) {
  const base = PUBSUB_EMULATOR_HOST ? `http://${PUBSUB_EMULATOR_HOST}` : "https://pubsub.googleapis.com";
  const response = await fetch(`${base}/v1/${TELEMETRY_TOPIC}:publish`, {
    method: "POST",
    headers: {
      "Content-Type": "application/json",
      ...(PUBSUB_EMULATOR_HOST ? {} : { Authorization: `Bearer ${ACCESS_TOKEN}` }),
    },
    body: JSON.stringify({
      messages: events.map((e) => ({ attributes, data: Buffer.from(JSON.stringify(e)).toString("base64") })),
    }),
    signal: AbortSignal.timeout(10_000),
  });
  if (!response.ok) {
    throw new Error(`HTTP ${response.status} for ${TELEMETRY_TOPIC}: ${await response.text()}`);
  }
  return (await response.json()).messageIds;
}

try {
  console.log("published", ...(await publish(example())));
} catch (error) {
  // A service goes on without telemetry.
  console.error("telemetry was lost:", error.message, error.cause?.message ?? "");
  process.exitCode = 1;
}
