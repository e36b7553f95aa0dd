"""Tests of telemetry.py. TELEMETRY_TOPIC is a topic of the emulator at PUBSUB_EMULATOR_HOST.

    python3 -m unittest telemetry_test
"""

import math
import os
import threading
import time
import unittest

import telemetry

TOPIC = os.environ["TELEMETRY_TOPIC"]
HOST = os.environ["PUBSUB_EMULATOR_HOST"]
NOBODY = "127.0.0.1:1"


def new(**more):
    return telemetry.Recorder(**{"topic": TOPIC, "service_id": "cody-analytics", "service_environment": "dev", **more})


class Test(unittest.TestCase):
    def setUp(self):
        self.addCleanup(os.environ.__setitem__, "PUBSUB_EMULATOR_HOST", HOST)

    def test_publishes_from_many_threads(self):
        recorder = new()
        threads = [threading.Thread(target=lambda: [recorder.record("cody.hover", "shown") for _ in range(300)]) for _ in range(4)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertTrue(recorder.flush(30), recorder.stats())
        self.assertLess(time.monotonic() - began, 30)
        self.assertEqual(recorder.close(), {"published": 1200, "failed": 0, "dropped": 0, "invalid": 0, "waiting": 0})
        self.assertFalse(recorder.record("cody.hover", "shown"))
        self.assertEqual(recorder.close()["dropped"], 1)

    def test_invalid_is_counted_and_never_raises(self):
        recorder = new()
        cyclic = {}
        cyclic["itself"] = cyclic
        for args, more in [
            (("Cody", "shown"), {}),
            (("cody.hover\n", "shown"), {}),
            ((None, "shown"), {}),
            (("cody.hover", "shown"), {"metadata": {"tier": "1"}}),
            (("cody.hover", "shown"), {"metadata": {"cached": True}}),
            (("cody.hover", "shown"), {"metadata": {"ratio": math.nan}}),
            (("cody.hover", "shown"), {"metadata": 7}),
            (("cody.hover", "shown"), {"privateMetadata": cyclic}),
            (("cody.hover", "shown"), {"privateMetadata": {"object": object()}}),
        ]:
            with self.assertLogs("telemetry") if not recorder.stats()["invalid"] else self.subTest():
                self.assertFalse(recorder.record(*args, **more), (args, more))
        self.assertTrue(recorder.record("cody.hover", "shown", privateMetadata={"half": "\ud800"}))
        stats = recorder.close(30)
        self.assertEqual((stats["invalid"], stats["published"]), (9, 1))

    def test_bounds_what_waits_while_pubsub_is_away(self):
        os.environ["PUBSUB_EMULATOR_HOST"] = NOBODY
        recorder = new(max_events=10)
        with self.assertLogs("telemetry") as logs:
            taken = sum(recorder.record("cody.hover", "shown") for _ in range(15))
            self.assertEqual(taken, 10)
        self.assertIn("(dropped): too many events wait", "\n".join(logs.output))
        os.environ["PUBSUB_EMULATOR_HOST"] = HOST
        self.assertTrue(recorder.flush(30))
        self.assertEqual(recorder.close(), {"published": 10, "failed": 0, "dropped": 5, "invalid": 0, "waiting": 0})

    def test_bounds_bytes(self):
        os.environ["PUBSUB_EMULATOR_HOST"] = NOBODY
        recorder = new(max_bytes=1000)
        self.assertTrue(recorder.record("cody.hover", "shown", privateMetadata={"x": "x" * 600}))
        with self.assertLogs("telemetry"):
            self.assertFalse(recorder.record("cody.hover", "shown", privateMetadata={"x": "x" * 600}))
        recorder.close(0.1)

    def test_close_gives_up_in_time(self):
        os.environ["PUBSUB_EMULATOR_HOST"] = NOBODY
        recorder = new()
        recorder.record("cody.hover", "shown")
        began = time.monotonic()
        stats = recorder.close(0.5)
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual((stats["failed"], stats["waiting"]), (1, 0))
        recorder._thread.join(20)
        self.assertFalse(recorder._thread.is_alive())

    def test_shows_the_servers_text(self):
        recorder = new(topic=TOPIC + "-elsewhere", retry_for=0.5)
        with self.assertLogs("telemetry") as logs:
            recorder.record("cody.hover", "shown")
            recorder.flush(30)
        self.assertRegex("\n".join(logs.output), r"HTTP 404 for projects/.*-elsewhere: .*not found")
        self.assertEqual(recorder.close()["failed"], 1)

    def test_topic_name(self):
        with self.assertRaises(ValueError):
            new(topic="telemetry-events")


if __name__ == "__main__":
    unittest.main()
