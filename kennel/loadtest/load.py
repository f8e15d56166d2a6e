"""Open-loop load, in a process of its own: `python -m kennel.loadtest.load < PLAN`. Prints one JSON line.

Requests leave when they are due, whether or not earlier ones were answered, as independent callers send them; so a
server that stalls is asked on, and what it is asked meanwhile counts as late.
"""

import dataclasses
import json
import math
import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kennel.loadtest.outcome import Load, Reply, judge
from kennel.loadtest.senders import Sender, over_http, over_sagemaker

CONNECTIONS = 256  # requests in flight at most; further ones wait, and the wait counts


@dataclass(frozen=True)
class Plan:
    """`url` or else `endpoint` is asked; `warm` seconds at the same rate come before the `seconds` that count."""

    url: str
    endpoint: str
    photos: tuple[str, ...]
    rate: float
    warm: float
    seconds: float
    p99_ms: float
    seed: int = 0


def arrivals(plan: Plan) -> list[float]:
    """Seconds from the start at which requests are due: at random, as those of many callers are, by the plan's seed.

    Exactly `rate` times the seconds of them, the warm-up's and the counted ones apart: each sorted draw is one path of
    a Poisson process of which that many came.
    """
    chance = random.Random(plan.seed)
    spans = ((0.0, plan.warm), (plan.warm, plan.warm + plan.seconds))
    return [moment for span in spans for moment in sorted(chance.uniform(*span) for _ in range(_count(plan, *span)))]


def _count(plan: Plan, low: float, high: float) -> int:
    return max(1, round(plan.rate * (high - low)))


class Run:
    """Sends by the plan, and stops as soon as the target cannot be held any more."""

    def __init__(self, plan: Plan, send: Sender, bodies: Sequence[bytes]) -> None:
        self._plan, self._send, self._bodies = plan, send, bodies
        self._replies: list[Reply] = []
        self._start = 0.0
        self._late_allowed = math.floor(0.01 * _count(plan, 0, plan.seconds))
        self._broken = threading.Event()

    def go(self) -> Load:
        plan = self._plan
        pool = ThreadPoolExecutor(CONNECTIONS)
        self._start = time.perf_counter()
        for number, meant in enumerate(self._due()):
            pool.submit(self._one, meant, self._bodies[number % len(self._bodies)])
        pool.shutdown(wait=True, cancel_futures=self._broken.is_set())
        planned = _count(plan, 0, plan.seconds)
        return judge(
            self._replies, rate=plan.rate, planned=planned, since=plan.warm, seconds=plan.seconds, p99_ms=plan.p99_ms
        )

    def _due(self) -> Iterator[float]:
        for meant in arrivals(self._plan):
            if self._broken.wait(max(0.0, self._start + meant - time.perf_counter())):
                return
            yield meant

    def _one(self, meant: float, body: bytes) -> None:
        begun = time.perf_counter() - self._start
        error = self._send(body)
        reply = Reply(meant, begun, time.perf_counter() - self._start, error)
        self._replies.append(reply)
        if meant >= self._plan.warm and 1000 * reply.latency > self._plan.p99_ms:
            self._late_allowed -= 1
        if error or self._late_allowed < 0:
            self._broken.set()


def main() -> None:
    given = json.load(sys.stdin)
    plan = Plan(**{**given, "photos": tuple(given["photos"])})
    patience = max(5.0, 3 * plan.p99_ms / 1000)
    bodies = [Path(file).read_bytes() for file in plan.photos]
    asked = (
        over_http(plan.url, patience, CONNECTIONS) if plan.url else over_sagemaker(plan.endpoint, patience, CONNECTIONS)
    )
    with asked as send:
        load = Run(plan, send, bodies).go()
    print(json.dumps(dataclasses.asdict(load)))


if __name__ == "__main__":
    main()
