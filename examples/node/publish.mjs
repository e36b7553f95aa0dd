// Records a telemetry event from Node, with Google's Pub/Sub client.
//
//   npm ci
//   export PUBSUB_EMULATOR_HOST=localhost:8085 TELEMETRY_TOPIC=projects/my-project/topics/telemetry-events
//   node publish.mjs
//
// The topic must be there: run `worker setup` first, with the same PUBSUB_EMULATOR_HOST and
// GOOGLE_CLOUD_PROJECT. Without PUBSUB_EMULATOR_HOST it publishes to Google's Pub/Sub, with the
// credentials that the client finds.

import { PubSub } from "@google-cloud/pubsub";
import { attributes, example } from "./event.mjs";

const { TELEMETRY_TOPIC = "", FLUSH_MS = "8000" } = process.env;

const pubsub = new PubSub({ projectId: TELEMETRY_TOPIC.split("/")[1] });
// Made once and shared. The client gathers messages into batches, and tries again for ten
// minutes while Pub/Sub is away.
const topic = pubsub.topic(TELEMETRY_TOPIC, {
  batching: { maxMilliseconds: 50, maxMessages: 500 },
});

const waiting = new Set();

// record returns at once. A service does not wait for telemetry, nor fails for it:
// it counts what was not published.
function record(event) {
  const sent = topic.publishMessage({ json: event, attributes }).then(
    (id) => console.log("published", id),
    (error) => {
      console.error("telemetry was lost:", error.message);
      process.exitCode = 1;
    },
  );
  waiting.add(sent);
  sent.finally(() => waiting.delete(sent));
}

record(example());

// When the service ends. flush() rejects with the errors of the events, which record
// reports already; and it waits as long as Pub/Sub is away.
topic.flush().catch(() => {});
let timer;
const timeout = new Promise((resolve) => (timer = setTimeout(resolve, Number(FLUSH_MS))));
await Promise.race([Promise.allSettled(waiting), timeout]);
clearTimeout(timer);
if (waiting.size > 0) {
  console.error(`telemetry was lost: ${waiting.size} events were not confirmed by Pub/Sub`);
  process.exit(1);
}
await pubsub.close();
