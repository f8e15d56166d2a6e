"""Admission control: a bounded queue of pictures for the worker threads."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from inference.errors import busy

T = TypeVar("T")

_WAITING = 16  # queued pictures for each worker, some megabytes each
_WEIGHT = 0.1  # of the newest picture in the running mean


class WorkQueue:
    """A first-in, first-out queue for one event loop; refuses what would wait longer than `seconds`."""

    def __init__(self, workers: int, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._workers, self._seconds, self._clock = workers, seconds, clock
        self._capacity = workers * (1 + _WAITING)
        self._pool = ThreadPoolExecutor(workers, "classify")
        self._lock = threading.Lock()
        self._inside = 0
        self._mean_seconds = 0.0  # seconds of one picture, the running mean

    def admit(self, pictures: int) -> None:
        """Raise Refused (429) when so many more pictures do not fit, or would be answered too late."""
        wait = max(0, self._inside + pictures - self._workers) * self._mean_seconds / self._workers
        if self._inside + pictures > self._capacity or wait > self._seconds:
            raise busy(max(1, math.ceil(wait / 2)))  # by then half of the queue is done

    def submit(self, work: Callable[[], T]) -> "asyncio.Future[tuple[T, float]]":
        """Return a future of (what `work` returns, seconds in the queue); work cancelled while queued never starts."""
        with self._lock:
            self._inside += 1
        job = self._pool.submit(self._run, work, self._clock())
        job.add_done_callback(self._done)
        return asyncio.wrap_future(job)

    def _run(self, work: Callable[[], T], joined: float) -> tuple[T, float]:
        begun = self._clock()
        try:
            return work(), begun - joined
        finally:
            took = self._clock() - begun
            with self._lock:
                self._mean_seconds += (took - self._mean_seconds) * (_WEIGHT if self._mean_seconds else 1)

    def _done(self, job: "Future[tuple[T, float]]") -> None:
        """Called when the work has ended: a picture whose caller has gone occupies its worker until then."""
        with self._lock:
            self._inside -= 1
