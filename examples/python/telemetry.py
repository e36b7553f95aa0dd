"""Records telemetry events behind the request, with the standard library alone.

    import telemetry

    recorder = telemetry.Recorder(
        topic=os.environ["TELEMETRY_TOPIC"],  # projects/PROJECT/topics/TOPIC
        service_id="cody-analytics",
        service_environment="prod",
    )
    recorder.record("cody.hover", "shown", metadata={"tier": 1})

record() returns at once and never raises: what is invalid, dropped or failed is counted in
stats() and logged at most once a minute. A thread publishes in batches, and tries again while
Pub/Sub is away. close() publishes what is left; it also runs when the interpreter ends.

With PUBSUB_EMULATOR_HOST it publishes to the emulator. Otherwise to Google's Pub/Sub, with
ACCESS_TOKEN (such as that of `gcloud auth print-access-token`) or, on Google Cloud, with the
token of the service account.
"""

import atexit
import base64
import collections
import datetime
import json
import logging
import math
import os
import re
import threading
import time
import urllib.error
import urllib.request
import uuid

_log = logging.getLogger("telemetry")

_NAME = re.compile(r"[a-z][a-zA-Z.-]{1,63}")
_TOPIC = re.compile(r"projects/[^/]+/topics/[^/]+")

_BATCH_EVENTS = 500
_BATCH_BYTES = 1 << 20
_BATCH_DELAY = 0.05  # seconds that an event waits for others
_REQUEST_TIMEOUT = 10  # seconds
_MAX_PAUSE = 5  # seconds between two tries
_COMPLAIN_EVERY = 60  # seconds
# Of HTTP's statuses, those that do not pass: the request is wrong.
_FINAL = {400, 413}


class Recorder:
    """Publishes events in a thread of its own. It is safe for use by many threads."""

    def __init__(
        self,
        topic,
        service_id,
        service_environment=None,
        service_version=None,
        max_events=10_000,
        max_bytes=32 << 20,
        retry_for=600.0,
    ):
        """max_events and max_bytes bound what waits; retry_for is in seconds."""
        if not _TOPIC.fullmatch(topic):
            raise ValueError(f"expected projects/PROJECT/topics/TOPIC, got {topic!r}")
        self._topic = topic
        self._attributes = {"schema_version": "1", "service_id": service_id}
        if service_environment:
            self._attributes["service_environment"] = service_environment
        if service_version:
            self._attributes["service_version"] = service_version
        self._max_events, self._max_bytes, self._retry_for = max_events, max_bytes, retry_for
        self._token, self._token_until = None, 0.0

        # The condition guards all of what follows.
        self._changed = threading.Condition()
        self._queue = collections.deque()  # of (time, data)
        self._bytes = 0
        self._in_flight = 0
        self._closed = self._stopped = self._flushing = False
        self._counts = {"published": 0, "failed": 0, "dropped": 0, "invalid": 0}
        self._complained, self._unsaid = -math.inf, 0
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def record(self, feature, action, **more):
        """Records that action happened to feature. more are fields of the event, such as
        metadata, privateMetadata and user. Returns whether the event was taken."""
        try:
            data = _render(feature, action, more)
        except Exception as fault:  # whatever a value's own code raises
            self._lose("invalid", 1, f"{feature}/{action}: {type(fault).__name__}: {fault}")
            return False
        with self._changed:
            full = len(self._queue) + self._in_flight >= self._max_events or self._bytes + len(data) > self._max_bytes
            closed = self._closed
            if not full and not closed:
                self._queue.append((time.monotonic(), data))
                self._bytes += len(data)
                self._changed.notify_all()
                return True
        self._lose("dropped", 1, "the recorder is closed" if closed else "too many events wait")
        return False

    def stats(self):
        """Returns how many events were published, failed, dropped and invalid, and wait."""
        with self._changed:
            return {**self._counts, "waiting": len(self._queue) + self._in_flight}

    def flush(self, timeout=8.0):
        """Waits until nothing waits any more. Returns whether that is so in time."""
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not self._queue and not self._in_flight, timeout)
            self._flushing = False
            return done

    def close(self, timeout=8.0):
        """Takes no more events and publishes what is left, for at most timeout seconds. What
        is not confirmed by then counts as failed. Returns the last stats()."""
        with self._changed:
            again, self._closed = self._closed, True
        if not again:
            self.flush(timeout)
            with self._changed:
                self._stopped = True
                left = len(self._queue) + self._in_flight
                self._queue.clear()
                self._in_flight = 0
                self._changed.notify_all()
            if left:
                self._lose("failed", left, "not confirmed by Pub/Sub before the end")
            atexit.unregister(self.close)
        return self.stats()

    def _run(self):
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopped)
                if self._stopped:
                    return
                # Wait for others, unless there are enough or a caller waits for these.
                self._changed.wait_for(
                    lambda: len(self._queue) >= _BATCH_EVENTS or self._flushing or self._stopped, _BATCH_DELAY
                )
                batch, size = [], 0
                while self._queue and len(batch) < _BATCH_EVENTS and (not batch or size + len(self._queue[0][1]) < _BATCH_BYTES):
                    batch.append(self._queue.popleft())
                    size += len(batch[-1][1])
                self._in_flight = len(batch)
            if batch:
                self._publish(batch, size)

    def _publish(self, batch, size):
        """Publishes a batch, again and again until retry_for is over for its first event."""
        until = batch[0][0] + self._retry_for
        pause, error = 0.1, None
        while True:
            try:
                self._request([data for _, data in batch])
                error = None
                break
            except _Refused as refused:
                error = str(refused)
                if refused.status in _FINAL:
                    break
            except (OSError, ValueError) as away:
                error = f"{type(away).__name__}: {away}"
            with self._changed:
                if self._stopped or time.monotonic() + pause > until:
                    break
                self._complain(f"telemetry events are not confirmed by Pub/Sub, and are tried again: {error}", 0)
                self._changed.wait_for(lambda: self._stopped, pause)
                if self._stopped:
                    break
            pause = min(2 * pause, _MAX_PAUSE)
        with self._changed:
            self._bytes -= size
            if self._stopped:  # close has counted them
                return
            self._in_flight = 0
            if error is None:
                self._counts["published"] += len(batch)
            self._changed.notify_all()
        if error is not None:
            self._lose("failed", len(batch), error)

    def _request(self, batch):
        emulator = os.environ.get("PUBSUB_EMULATOR_HOST")
        headers = {"Content-Type": "application/json"}
        if emulator:
            base = f"http://{emulator}"
        else:
            base = "https://pubsub.googleapis.com"
            headers["Authorization"] = f"Bearer {self._access_token()}"
        messages = [{"attributes": self._attributes, "data": base64.b64encode(data).decode()} for data in batch]
        request = urllib.request.Request(
            f"{base}/v1/{self._topic}:publish", data=json.dumps({"messages": messages}).encode(), headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT) as response:
                response.read()
        except urllib.error.HTTPError as error:
            raise _Refused(error.code, self._topic, error.read(2000).decode(errors="replace")) from None

    def _access_token(self):
        if token := os.environ.get("ACCESS_TOKEN"):
            return token
        if time.monotonic() >= self._token_until:
            request = urllib.request.Request(
                "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token",
                headers={"Metadata-Flavor": "Google"},
            )
            with urllib.request.urlopen(request, timeout=_REQUEST_TIMEOUT) as response:
                answer = json.load(response)
            self._token = answer["access_token"]
            self._token_until = time.monotonic() + answer["expires_in"] - 60
        return self._token

    def _lose(self, kind, count, why):
        with self._changed:
            self._counts[kind] += count
            self._complain(f"telemetry events were lost ({kind}): {why}", count)

    def _complain(self, text, count):
        """Logs at most once a minute. The caller holds the condition."""
        self._unsaid += count
        if time.monotonic() - self._complained < _COMPLAIN_EVERY:
            return
        if self._unsaid:
            text += f" ({self._unsaid} since the last such line)"
        self._complained, self._unsaid = time.monotonic(), 0
        _log.warning("%s", text)


class _Refused(Exception):
    """An answer of Pub/Sub's that is no success, with the server's text."""

    def __init__(self, status, topic, text):
        super().__init__(f"HTTP {status} for {topic}: {' '.join(text.split())}")
        self.status = status


def uuid7():
    """A UUID that begins with the time, so that ids sort by it."""
    value = int(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76  # version
    value = value & ~(0x3 << 62) | 2 << 62  # variant
    return str(uuid.UUID(int=value))


def _render(feature, action, more):
    """The event's data, or an error that says what the relay would reject. The rest is in
    event.schema.json, for tests."""
    for what, name in (("feature", feature), ("action", action)):
        if not _NAME.fullmatch(name):
            raise ValueError(f"{what}: expected a lower-case letter, then letters, hyphens and full stops, 2 to 64 in all")
    for key, value in (more.get("metadata") or {}).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"metadata: {key}: expected a number; a boolean is 0 or 1")
    now = datetime.datetime.now(datetime.timezone.utc)
    event = {
        "feature": feature,
        "action": action,
        "id": uuid7(),
        "timestamp": now.isoformat().replace("+00:00", "Z"),
        **more,
    }
    # allow_nan=False: NaN and Infinity are no JSON. Half a surrogate pair is replaced.
    text = json.dumps(event, allow_nan=False, ensure_ascii=False)
    return text.encode("utf-8", errors="replace")
