"""A moment by which the caller must have an answer, and a way to leave work that would miss it."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, NamedTuple, Self, TypeVar

T = TypeVar("T")

_RESERVE = 0.5  # seconds in which to write the answer before Lambda ends the sandbox
_UNKNOWN = 25.0  # seconds, where the context does not tell


class Deadline(NamedTuple):
    """`at` in seconds of time.monotonic()."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        return cls(time.monotonic() + seconds)

    @classmethod
    def of(cls, context: Any) -> Self:
        """The invocation's own, less what writing the answer takes."""
        tell = getattr(context, "get_remaining_time_in_millis", None)
        return cls.after((tell() / 1000 if tell else _UNKNOWN) - _RESERVE)

    def left(self) -> float:
        """Seconds, never negative."""
        return max(0.0, self.at - time.monotonic())

    def part(self, share: float, at_most: float) -> "Deadline":
        """An earlier one: `share` of what is left, or `at_most` seconds from now."""
        return Deadline.after(min(share * self.left(), at_most))

    def time_left(self) -> float:
        """Seconds, more than none; raises TimeoutError when the moment has come."""
        if (left := self.left()) > 0:
            return left
        raise TimeoutError("the deadline has passed")

    def bound(self, call: Callable[[], T]) -> T:
        """What `call` returns or raises, or TimeoutError at the deadline.

        For calls that know no deadline of their own (name resolution, botocore). One that is late is left behind in a
        daemon thread, which ends by its own longer timeouts and keeps no sandbox alive.
        """
        seconds = self.time_left()  # before the call begins: with no time left there is none
        future: Future[T] = Future()
        Thread(target=_settle, args=(future, call), daemon=True).start()
        return future.result(seconds)


def _settle(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # it belongs to the waiting thread, whatever it is
        future.set_exception(error)
