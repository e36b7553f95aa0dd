// Records a telemetry event from Node, with Google's Pub/Sub client.
//
//   npm ci
//   PUBSUB_EMULATOR_HOST=localhost:8085 GOOGLE_CLOUD_PROJECT=my-project node publish.mjs
//
// Without PUBSUB_EMULATOR_HOST it publishes to Google's Pub/Sub, with the
// credentials that the client finds.

import { PubSub } from "@google-cloud/pubsub";
import { attributes, example } from "./event.mjs";

const pubsub = new PubSub({ projectId: process.env.GOOGLE_CLOUD_PROJECT });
// Made once and shared. The client gathers messages into batches.
const topic = pubsub.topic(process.env.PUBSUB_TOPIC ?? "telemetry-events", {
  batching: { maxMilliseconds: 50, maxMessages: 500 },
});

// record returns at once. A service does not wait for telemetry, nor fails for it:
// it counts what was not published.
function record(event) {
  return topic.publishMessage({ json: event, attributes }).then(
    (id) => console.log("published", id),
    (error) => {
      console.error("telemetry was lost:", error.message);
      process.exitCode = 1;
    },
  );
}

record(example());

await topic.flush(); // when the service ends
await pubsub.close();
