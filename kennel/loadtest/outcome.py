"""What became of the requests of one rate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WINDOW = 10.0  # seconds of one data point of SageMaker's high-resolution metric


@dataclass(frozen=True)
class Reply:
    """Seconds since the load's start: when the request was meant to go, when it went, when it ended.

    `error` is empty for a 200.
    """

    meant: float
    begun: float
    ended: float
    error: str = ""

    @property
    def latency(self) -> float:
        """From when it was meant to go: a request that waited for its turn to be sent waited for the server."""
        return self.ended - self.meant


@dataclass(frozen=True)
class Load:
    """One rate (requests a second) and what it came to; times in milliseconds, None where nothing was answered.

    `concurrency` are the requests in flight on average, `concurrency_peak` the most in ten seconds, on average over the
    tens of seconds. `late_ms`: how late requests left for the load's own sake (99th percentile).
    """

    rate: float
    held: bool
    requests: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    concurrency: float
    concurrency_peak: float
    late_ms: float
    error: str = ""


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all do not exceed; `ordered` ascends and is not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def judge(replies: Sequence[Reply], *, rate: float, planned: int, since: float, seconds: float, p99_ms: float) -> Load:
    """Judge the requests that were meant for the `seconds` from `since` on; `planned` is how many they should be."""
    counted = [reply for reply in replies if reply.meant >= since]
    good = sorted(1000 * reply.latency for reply in counted if not reply.error)
    failed = [reply.error for reply in replies if reply.error]  # one that fails while it warms up tells as much
    times: dict[str, Any] = {f"p{share}_ms": percentile(good, share / 100) if good else None for share in (50, 95, 99)}
    held = not failed and len(good) == planned and bool(good) and percentile(good, 0.99) <= p99_ms
    late = sorted(1000 * (reply.begun - reply.meant) for reply in counted)
    return Load(
        rate=rate,
        held=held,
        requests=len(counted),
        failed=len(failed),
        **times,
        concurrency=_mean_in_flight(replies, since, seconds),
        concurrency_peak=_peak_in_flight(replies, since, seconds),
        late_ms=percentile(late, 0.99) if late else 0.0,
        error=failed[0] if failed else "",
    )


def _mean_in_flight(replies: Sequence[Reply], since: float, seconds: float) -> float:
    until = since + seconds
    spent = (min(reply.ended, until) - max(reply.begun, since) for reply in replies)
    return sum(max(0.0, each) for each in spent) / seconds


def _peak_in_flight(replies: Sequence[Reply], since: float, seconds: float) -> float:
    windows = max(1, int(seconds // WINDOW))
    peaks, flying = [0] * windows, 0
    changes = sorted([(reply.begun, 1) for reply in replies] + [(reply.ended, -1) for reply in replies])
    for moment, change in changes:
        flying += change
        window = int((moment - since) * windows // seconds)
        if 0 <= window < windows:
            peaks[window] = max(peaks[window], flying)
    return sum(peaks) / windows
