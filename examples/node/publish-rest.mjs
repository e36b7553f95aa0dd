// Records a telemetry event from Node, without any dependency.
//
//   PUBSUB_EMULATOR_HOST=localhost:8085 GOOGLE_CLOUD_PROJECT=my-project node publish-rest.mjs
//
// Without PUBSUB_EMULATOR_HOST it publishes to Google's Pub/Sub, with ACCESS_TOKEN
// (such as that of `gcloud auth print-access-token`).

import { attributes, example } from "./event.mjs";

const { GOOGLE_CLOUD_PROJECT, PUBSUB_TOPIC = "telemetry-events", PUBSUB_EMULATOR_HOST, ACCESS_TOKEN } = process.env;

// publish publishes events in one request, at most 1000, and returns their message
// ids.
async function publish(...events) {
  const base = PUBSUB_EMULATOR_HOST ? `http://${PUBSUB_EMULATOR_HOST}` : "https://pubsub.googleapis.com";
  const response = await fetch(`${base}/v1/projects/${GOOGLE_CLOUD_PROJECT}/topics/${PUBSUB_TOPIC}:publish`, {
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
    throw new Error(`${response.status}: ${await response.text()}`);
  }
  return (await response.json()).messageIds;
}

console.log("published", ...(await publish(example())));
