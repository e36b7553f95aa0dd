#!/usr/bin/env bash
# Records a telemetry event with curl.
#
#   export PUBSUB_EMULATOR_HOST=localhost:8085 TELEMETRY_TOPIC=projects/my-project/topics/telemetry-events
#   ./publish.sh
#
# The topic must be there: run `worker setup` first, with the same PUBSUB_EMULATOR_HOST and
# GOOGLE_CLOUD_PROJECT. Without PUBSUB_EMULATOR_HOST it publishes to Google's Pub/Sub, with ACCESS_TOKEN
# (such as that of `gcloud auth print-access-token`).
set -euo pipefail

headers=(-H 'Content-Type: application/json')
if [[ -n ${PUBSUB_EMULATOR_HOST:-} ]]; then
  base=http://$PUBSUB_EMULATOR_HOST
else
  base=https://pubsub.googleapis.com
  headers+=(-H "Authorization: Bearer $ACCESS_TOKEN")
fi

# Neither id nor timestamp: the relay derives them from the message.
event='{"feature":"cody.hover","action":"shown","metadata":{"tier":1}}'

data=$(base64 <<<"$event" | tr -d '\n')
curl --silent --show-error --fail-with-body "${headers[@]}" "$base/v1/$TELEMETRY_TOPIC:publish" --data @- <<EOT
{"messages": [{
  "attributes": {"schema_version": "1", "service_id": "cody-analytics", "service_environment": "dev"},
  "data": "$data"
}]}
EOT
