"""The pictures that wait for a worker, first come, first served; and those who are told at once to come back."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from inference.errors import Refused

T = TypeVar("T")

_WAITING = 16  # pictures for each worker, some megabytes each
_WEIGHT = 0.1  # of the newest picture in the running mean


class Line:
    """For one event loop. `seconds`: within which an answer is of use; whoever would wait longer is refused."""

    def __init__(self, workers: int, seconds: float) -> None:
        self._workers, self._seconds = workers, seconds
        self._places = workers * (1 + _WAITING)
        self._pool = ThreadPoolExecutor(workers, "classify")
        self._lock = threading.Lock()
        self._inside = 0
        self._service = 0.0  # seconds of one picture, the running mean

    def admit(self, pictures: int) -> None:
        """Raises Refused when so many more do not fit, or would be answered too late."""
        wait = max(0, self._inside + pictures - self._workers) * self._service / self._workers
        if self._inside + pictures > self._places or wait > self._seconds:
            # By then half of those who wait are gone.
            after = {"Retry-After": str(max(1, math.ceil(wait / 2)))}
            raise Refused(503, "busy", "The server has too much to do; try again.", after)

    def join(self, work: Callable[[], T]) -> "asyncio.Future[tuple[T, float]]":
        """What `work` returns, from a worker, and the seconds of waiting; what is cancelled before is never begun."""
        with self._lock:
            self._inside += 1
        job = self._pool.submit(self._run, work, time.perf_counter())
        job.add_done_callback(self._leave)
        return asyncio.wrap_future(job)

    def _run(self, work: Callable[[], T], joined: float) -> tuple[T, float]:
        begun = time.perf_counter()
        try:
            return work(), begun - joined
        finally:
            took = time.perf_counter() - begun
            with self._lock:
                self._service += (took - self._service) * (_WEIGHT if self._service else 1)

    def _leave(self, job: "Future[tuple[T, float]]") -> None:
        """When it is really done: a picture whose caller has gone holds its place while it is computed."""
        with self._lock:
            self._inside -= 1
