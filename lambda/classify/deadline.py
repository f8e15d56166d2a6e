"""The moment by which the caller must have an answer, and a way to abandon work that would miss it."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, NamedTuple, Self, TypeVar

T = TypeVar("T")

_RESERVE_SECONDS = 0.5  # for writing the answer before Lambda ends the sandbox
_DEFAULT_SECONDS = 25.0  # where the context does not say how much time is left


class Deadline(NamedTuple):
    """A moment, `at` in seconds of time.monotonic()."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        return cls(time.monotonic() + seconds)

    @classmethod
    def of_invocation(cls, context: Any) -> Self:
        """Return Lambda's own deadline, less the time to write the answer."""
        milliseconds = getattr(context, "get_remaining_time_in_millis", None)
        return cls.after((milliseconds() / 1000 if milliseconds else _DEFAULT_SECONDS) - _RESERVE_SECONDS)

    def remaining(self) -> float:
        """Return the seconds left, never negative."""
        return max(0.0, self.at - time.monotonic())

    def timeout(self) -> float:
        """Return the seconds left, always more than 0; raise TimeoutError when the deadline has passed."""
        if (seconds := self.remaining()) > 0:
            return seconds
        raise TimeoutError("the deadline has passed")

    def earlier(self, share: float, at_most: float) -> "Deadline":
        """Return the deadline after a share of the time left, and after at most so many seconds."""
        return Deadline.after(min(share * self.remaining(), at_most))

    def run(self, call: Callable[[], T]) -> T:
        """Return what `call` returns or raise what it raises; raise TimeoutError at the deadline.

        This is for calls that know no deadline of their own: name resolution, botocore, urllib3, whose timeouts start
        again with each byte. A late call is abandoned in a daemon thread, which ends by its own longer timeouts.
        """
        seconds = self.timeout()  # before the call begins: with no time left nothing is called
        future: Future[T] = Future()
        Thread(target=_resolve, args=(future, call), daemon=True).start()
        return future.result(seconds)


def _resolve(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # whatever it is, it belongs to the waiting thread
        future.set_exception(error)
