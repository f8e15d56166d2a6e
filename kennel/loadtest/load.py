"""Load on a server or an endpoint, and what became of it: `python -m kennel.loadtest.load < PLAN`, one JSON line.

The command's load is open-loop: requests leave when they are due, whether or not earlier ones were answered, as
independent callers send them; so a server that stalls gets further requests, and their waiting counts as latency.
The benchmarks also use `closed_loop`, in which each connection waits for its answer before it sends again.
"""

import dataclasses
import json
import math
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

CONNECTIONS = 256  # requests in flight at most; further ones wait, and the wait counts
WINDOW = 10.0  # seconds of one data point of SageMaker's high-resolution metric
_TYPE = "application/octet-stream"
_T = TypeVar("_T")

Sender = Callable[[bytes], str]
"""Sends one picture; returns what went wrong, or an empty string for a 200."""


@dataclass(frozen=True)
class Plan:
    """The target of the requests (`url` or else `endpoint`) and their `rate` in requests a second.

    `warm` seconds at the same rate come before the `seconds` that count.
    """

    url: str
    endpoint: str
    photos: tuple[str, ...]
    rate: float
    warm: float
    seconds: float
    p99_ms: float
    seed: int = 0


@dataclass(frozen=True)
class Reply:
    """Seconds since the load's start: when the request was due, when it was sent, when its answer had come.

    `error` is empty for a 200.
    """

    due: float
    sent: float
    ended: float
    error: str = ""

    @property
    def latency(self) -> float:
        """Return the seconds since it was due: a request that waited to be sent waited for the server."""
        return self.ended - self.due


@dataclass(frozen=True)
class Load:
    """The result of one rate (requests a second); `held`: the target was met. Times in ms, None without any answer.

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


def arrivals(plan: Plan) -> list[float]:
    """Return the seconds from the start at which requests are due: random, but the same for the same seed.

    Exactly `rate` times the seconds of them, the warm-up's and the counted ones apart: each sorted draw is one path of
    a Poisson process of which that many came.
    """
    chance = random.Random(plan.seed)
    spans = ((0.0, plan.warm), (plan.warm, plan.warm + plan.seconds))
    return [moment for span in spans for moment in sorted(chance.uniform(*span) for _ in range(_count(plan, *span)))]


def _count(plan: Plan, low: float, high: float) -> int:
    return max(1, round(plan.rate * (high - low)))


class OpenLoop:
    """A run of a plan, which stops as soon as the target cannot be held any more."""

    def __init__(self, plan: Plan, send: Sender, bodies: Sequence[bytes]) -> None:
        self._plan, self._send, self._bodies = plan, send, bodies
        self._replies: list[Reply] = []
        self._start = 0.0
        self._late_allowed = math.floor(0.01 * _count(plan, 0, plan.seconds))
        self._broken = threading.Event()

    def run(self) -> Load:
        """Send everything, wait for the answers, and return what they came to."""
        plan = self._plan
        pool = ThreadPoolExecutor(CONNECTIONS)
        self._start = time.perf_counter()
        for number, due in enumerate(self._until_broken()):
            pool.submit(self._one, due, self._bodies[number % len(self._bodies)])
        pool.shutdown(wait=True, cancel_futures=self._broken.is_set())
        planned = _count(plan, 0, plan.seconds)
        return judge(
            self._replies, rate=plan.rate, planned=planned, since=plan.warm, seconds=plan.seconds, p99_ms=plan.p99_ms
        )

    def _until_broken(self) -> Iterator[float]:
        for due in arrivals(self._plan):
            if self._broken.wait(max(0.0, self._start + due - time.perf_counter())):
                return
            yield due

    def _one(self, due: float, body: bytes) -> None:
        sent = time.perf_counter() - self._start
        error = self._send(body)
        reply = Reply(due, sent, time.perf_counter() - self._start, error)
        self._replies.append(reply)
        if due >= self._plan.warm and 1000 * reply.latency > self._plan.p99_ms:
            self._late_allowed -= 1
        if error or self._late_allowed < 0:
            self._broken.set()


def closed_loop(
    ask: Callable[[int, int], _T], connections: int, seconds: float, *, ramp: float = 0.0, most: int = 100_000
) -> list[_T]:
    """Return all that `ask(connection, turn)` returned: each connection asks again as soon as it has its answer.

    The connections join one after the other within `ramp` seconds, and begin no further turn `seconds` after that or
    when they have had their share of the `most` turns. Raise what `ask` raises.
    """
    until = time.monotonic() + ramp + seconds

    def connection(number: int) -> list[_T]:
        time.sleep(ramp * number / connections)
        results: list[_T] = []
        while time.monotonic() < until and len(results) < most / connections:
            results.append(ask(number, len(results)))
        return results

    with ThreadPoolExecutor(connections) as pool:
        return [result for results in pool.map(connection, range(connections)) for result in results]


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` (0 to 1) of all do not exceed; `ordered` ascends and is not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def percentiles_ms(seconds: Sequence[float]) -> dict[str, Any]:
    """Return p50_ms, p95_ms and p99_ms of times in seconds; None where there are none."""
    ordered = sorted(1000 * each for each in seconds)
    return {f"p{share}_ms": percentile(ordered, share / 100) if ordered else None for share in (50, 95, 99)}


def judge(replies: Sequence[Reply], *, rate: float, planned: int, since: float, seconds: float, p99_ms: float) -> Load:
    """Judge the requests that were due in the `seconds` from `since` on; `planned` is how many they should be."""
    counted = [reply for reply in replies if reply.due >= since]
    good = [reply.latency for reply in counted if not reply.error]
    failed = [reply.error for reply in replies if reply.error]  # one that fails while it warms up tells as much
    times = percentiles_ms(good)
    late = sorted(1000 * (reply.sent - reply.due) for reply in counted)
    return Load(
        rate=rate,
        held=not failed and len(good) == planned and bool(good) and times["p99_ms"] <= p99_ms,
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
    spent = (min(reply.ended, until) - max(reply.sent, since) for reply in replies)
    return sum(max(0.0, each) for each in spent) / seconds


def _peak_in_flight(replies: Sequence[Reply], since: float, seconds: float) -> float:
    windows = max(1, int(seconds // WINDOW))
    peaks, in_flight = [0] * windows, 0
    changes = sorted([(reply.sent, 1) for reply in replies] + [(reply.ended, -1) for reply in replies])
    for moment, change in changes:
        in_flight += change
        window = int((moment - since) * windows // seconds)
        if 0 <= window < windows:
            peaks[window] = max(peaks[window], in_flight)
    return sum(peaks) / windows


@contextmanager
def over_http(url: str, seconds: float, connections: int) -> Iterator[Sender]:
    """Yield a sender that keeps its connections to a server; an answer may take `seconds`."""
    import urllib3

    def send(body: bytes) -> str:
        try:
            answer = pool.request("POST", url, body=body, headers={"Content-Type": _TYPE})
        except urllib3.exceptions.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        return "" if answer.status == 200 else f"{answer.status}: {answer.data[:200].decode('utf-8', 'replace')}"

    with urllib3.PoolManager(maxsize=connections, retries=False, timeout=seconds) as pool:
        yield send


@contextmanager
def over_sagemaker(endpoint: str, seconds: float, connections: int) -> Iterator[Sender]:
    """Yield a sender to an endpoint that retries nothing: a request that is refused is one that was lost."""
    import boto3  # type: ignore[import-untyped]
    from botocore.config import Config  # type: ignore[import-untyped]
    from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

    config = Config(
        retries={"total_max_attempts": 1}, max_pool_connections=connections, connect_timeout=5, read_timeout=seconds
    )
    runtime: Any = boto3.client("sagemaker-runtime", config=config)

    def send(body: bytes) -> str:
        try:
            runtime.invoke_endpoint(EndpointName=endpoint, ContentType=_TYPE, Body=body)["Body"].read()
        except (BotoCoreError, ClientError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    yield send
    runtime.close()


def main() -> None:
    given = json.load(sys.stdin)
    plan = Plan(**{**given, "photos": tuple(given["photos"])})
    timeout = max(5.0, 3 * plan.p99_ms / 1000)
    bodies = [Path(file).read_bytes() for file in plan.photos]
    target, over = (plan.url, over_http) if plan.url else (plan.endpoint, over_sagemaker)
    with over(target, timeout, CONNECTIONS) as send:
        load = OpenLoop(plan, send, bodies).run()
    print(json.dumps(dataclasses.asdict(load)))


if __name__ == "__main__":
    main()
