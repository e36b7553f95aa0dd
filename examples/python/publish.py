#!/usr/bin/env python3
"""Records a telemetry event from Python, with the standard library alone.

    PUBSUB_EMULATOR_HOST=localhost:8085 GOOGLE_CLOUD_PROJECT=my-project ./publish.py

Without PUBSUB_EMULATOR_HOST it publishes to Google's Pub/Sub, with ACCESS_TOKEN
(such as that of `gcloud auth print-access-token`) or, on Google Cloud, with the
token of the service account.
"""

import base64
import datetime
import json
import os
import time
import urllib.request
import uuid

PROJECT = os.environ["GOOGLE_CLOUD_PROJECT"]
TOPIC = os.environ.get("PUBSUB_TOPIC", "telemetry-events")
EMULATOR = os.environ.get("PUBSUB_EMULATOR_HOST")

# Who records. services.yaml of the relay must list the service.
ATTRIBUTES = {
    "schema_version": "1",
    "service_id": "cody-analytics",
    "service_environment": "dev",
    "service_version": "1.2.3",
}


def uuid7():
    """A UUID that begins with the time, so that ids sort by it."""
    value = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0x3 << 62) | 2 << 62  # variant
    return str(uuid.UUID(int=value))


def event(feature, action, **more):
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "feature": feature,
        "action": action,
        "id": uuid7(),
        "timestamp": now.isoformat().replace("+00:00", "Z"),
        **more,
    }


def access_token():
    if token := os.environ.get("ACCESS_TOKEN"):
        return token
    request = urllib.request.Request(
        "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token",
        headers={"Metadata-Flavor": "Google"},
    )
    with urllib.request.urlopen(request, timeout=5) as response:
        return json.load(response)["access_token"]


def publish(*events):
    """Publishes events in one request, at most 1000, and returns their message ids."""
    # allow_nan=False: NaN and Infinity are no JSON, and the relay rejects them.
    messages = [
        {
            "attributes": ATTRIBUTES,
            "data": base64.b64encode(json.dumps(e, allow_nan=False).encode()).decode(),
        }
        for e in events
    ]
    headers = {"Content-Type": "application/json"}
    if EMULATOR:
        base = f"http://{EMULATOR}"
    else:
        base = "https://pubsub.googleapis.com"
        headers["Authorization"] = f"Bearer {access_token()}"
    request = urllib.request.Request(
        f"{base}/v1/projects/{PROJECT}/topics/{TOPIC}:publish",
        data=json.dumps({"messages": messages}).encode(),
        headers=headers,
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["messageIds"]


if __name__ == "__main__":
    ids = publish(
        event(
            "cody.hover",
            "shown",
            metadata={"tier": 1, "durationMs": 12.5},
            privateMetadata={"repository": "github.com/sourcegraph/example"},
            user={"samsExternalId": "018d21f2-0b8d-7a4e-8a53-3bfc4e0a5d37"},
        )
    )
    print("published", *ids)
