"""locust's clients for serving.py: each takes the next unsent request, and the last answer ends the run.

LOAD_FOLDER: contains bodies.json and receives answers.json.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant, events, task
from locust.exception import StopUser

FOLDER = Path(os.environ["LOAD_FOLDER"])
BODIES = json.loads((FOLDER / "bodies.json").read_text())
PLACES = itertools.count()
ANSWERS: list[dict[str, Any]] = []


class Client(FastHttpUser):
    """A client of the closed loop."""

    wait_time = constant(0)
    network_timeout = connection_timeout = 600.0

    @task
    def rerank(self) -> None:
        """Send one ranking request."""
        place = next(PLACES)
        if place >= len(BODIES):
            raise StopUser
        began = time.monotonic()
        with self.client.post("/v2/rerank", json=BODIES[place], catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
            results = response.json()["results"]
        ANSWERS.append({"place": place, "began": began, "ended": time.monotonic(), "results": results})
        if len(ANSWERS) == len(BODIES):
            gevent.spawn(self.environment.runner.quit)  # in a greenlet, since it waits for this client


@events.quitting.add_listener
def keep(**_: Any) -> None:
    """Write the responses."""
    (FOLDER / "answers.json").write_text(json.dumps(ANSWERS))
