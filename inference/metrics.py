"""Counts and times for CloudWatch, which reads them from the log: its embedded metric format, without any payload."""

import threading
import time
from collections.abc import Callable

from inference import logs
from inference.timings import Timings

_EVERY = 60.0  # seconds
_MOST = 100  # values of one metric that CloudWatch takes in a line
_TIMES = {"QueueMs": "queue_ms", "DecodeMs": "decode_ms", "ModelMs": "model_ms"}
_COUNTS = ("Requests", "ClientErrors", "ServerErrors", "Busy")


class Metrics:
    """May be told from any thread."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint, self._lock = endpoint, threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._times: dict[str, list[float]] = {name: [] for name in _TIMES}

    def count(self, status: int) -> None:
        """Of one request to /invocations."""
        with self._lock:
            self._counts["Requests"] += 1
            if status >= 400:
                self._counts["Busy" if status == 503 else "ServerErrors" if status >= 500 else "ClientErrors"] += 1

    def note(self, timings: Timings) -> None:
        """Of one request that was answered."""
        with self._lock:
            for name, attribute in _TIMES.items():
                self._times[name].append(getattr(timings, attribute))

    def write(self) -> None:
        """What came since the last time, as one line."""
        with self._lock:
            counts, times = self._counts, self._times
            self._clear()
        values = {name: spread(found) for name, found in times.items() if found}
        metrics = [{"Name": name, "Unit": "Count"} for name in counts]
        metrics += [{"Name": name, "Unit": "Milliseconds"} for name in values]
        dimension = {"Endpoint": self._endpoint} if self._endpoint else {}
        directive = {"Namespace": "Kennel/Server", "Dimensions": [list(dimension)], "Metrics": metrics}
        about = {"Timestamp": int(1000 * time.time()), "CloudWatchMetrics": [directive]}
        logs.event("metrics", _aws=about, **dimension, **counts, **values)

    def start(self) -> Callable[[], None]:
        """Writes once a minute until the function that is returned is called; that writes the last line."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_EVERY):
                self.write()

        thread = threading.Thread(target=watch, name="metrics", daemon=True)
        thread.start()

        def stop() -> None:
            ended.set()
            thread.join()
            self.write()

        return stop


def spread(values: list[float]) -> list[float]:
    """At most as many as a line takes: every so many-th in order of size, least and greatest among them."""
    ordered = sorted(values)
    if len(ordered) > _MOST:
        ordered = [ordered[place * (len(ordered) - 1) // (_MOST - 1)] for place in range(_MOST)]
    return [round(value, 3) for value in ordered]
