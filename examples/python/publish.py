#!/usr/bin/env python3
"""Records a telemetry event from Python, with telemetry.py and the standard library alone.

    export PUBSUB_EMULATOR_HOST=localhost:8085 TELEMETRY_TOPIC=projects/my-project/topics/telemetry-events
    ./publish.py

The topic must be there: run `worker setup` first, with the same PUBSUB_EMULATOR_HOST and
GOOGLE_CLOUD_PROJECT. Without PUBSUB_EMULATOR_HOST it publishes to Google's Pub/Sub; see
telemetry.py for the credentials.
"""

import logging
import os
import sys

import telemetry

logging.basicConfig(level=logging.WARNING)

# Made once and shared by all threads of the service.
recorder = telemetry.Recorder(
    topic=os.environ["TELEMETRY_TOPIC"],
    # services.yaml of the relay must list the service.
    service_id="cody-analytics",
    service_environment="dev",
    service_version="1.2.3",
    retry_for=float(os.environ.get("RETRY_FOR", "600")),
)

# A service does this where something happens. It returns at once.
recorder.record(
    "cody.hover",
    "shown",
    metadata={"tier": 1, "durationMs": 12.5},
    privateMetadata={"repository": "github.com/sourcegraph/example"},
    user={"samsExternalId": "018d21f2-0b8d-7a4e-8a53-3bfc4e0a5d37"},
)

stats = recorder.close(timeout=8)  # when the service ends
print(stats)
sys.exit(stats["published"] != 1)
