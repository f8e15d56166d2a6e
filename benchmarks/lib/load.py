"""Load on a server of this machine: `python -m benchmarks.lib.load SETTINGS_JSON`. Prints one JSON line.

So many connections, each kept alive and asking for the next picture as soon as it has an answer. Answers are looked at
after the clock has stopped: while it runs, the cores belong to the server.
"""

import http.client
import json
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lib.answers import best
from benchmarks.lib.photographs import files

_TIMEOUT = 60.0  # seconds for one answer: as long as SageMaker waits
_MOST = 100_000  # requests of one run, whatever the server's speed


@dataclass(frozen=True)
class Plan:
    """`warm`: seconds before counting begins; `seconds`: that are counted; `outputs`: probabilities in an answer."""

    port: int
    path: str
    photos: str
    connections: int
    warm: float
    seconds: float
    outputs: int
    classes: int


@dataclass(frozen=True)
class Reply:
    """`begun` and `ended` in seconds of time.monotonic(); status 0: the connection broke."""

    picture: int
    begun: float
    ended: float
    status: int
    body: bytes


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all do not exceed; `ordered` ascends and is not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def main(plan: Plan) -> None:
    pictures = files(Path(plan.photos))
    bodies = [file.read_bytes() for file in pictures]
    begun, spent = time.monotonic(), _cpu_seconds()
    replies = _ask_all(plan, bodies)
    took, spent = time.monotonic() - begun, _cpu_seconds() - spent
    cores = len(os.sched_getaffinity(0))
    names = [file.name for file in pictures]
    found = judge(plan, replies, names, begun + plan.warm)
    print(json.dumps(found | {"took": took, "load_cpu": spent / took / cores}))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _ask_all(plan: Plan, bodies: Sequence[bytes]) -> list[Reply]:
    replies: list[list[Reply]] = [[] for _ in range(plan.connections)]
    until = time.monotonic() + plan.warm + plan.seconds
    threads = [
        threading.Thread(target=_ask, args=(plan, bodies, place, until, mine)) for place, mine in enumerate(replies)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [reply for mine in replies for reply in mine]


def _ask(plan: Plan, bodies: Sequence[bytes], place: int, until: float, replies: list[Reply]) -> None:
    """One connection, which begins at a picture of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", plan.port, timeout=_TIMEOUT)
    picture = place * len(bodies) // plan.connections
    for _ in range(_MOST // plan.connections):
        begun = time.monotonic()
        if begun >= until:
            break
        picture = (picture + 1) % len(bodies)
        try:
            connection.request("POST", plan.path, bodies[picture], {"Content-Type": "application/octet-stream"})
            response = connection.getresponse()
            status, body = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            status, body = 0, repr(error).encode()
            time.sleep(0.1)  # a server that is gone is not asked a million times
        replies.append(Reply(picture, begun, time.monotonic(), status, body))
    connection.close()


def judge(plan: Plan, replies: Sequence[Reply], names: Sequence[str], since: float) -> dict[str, Any]:
    """Rate (answers a second) and milliseconds of the good answers that came within the counted seconds.

    Of all replies, whenever they came: `errors` have another status than 200; `wrong` are no probabilities, or name
    another best class than the picture had before; `best` has each picture's class by the picture's name.
    """
    found: dict[str, str] = {}
    errors, wrong, good = 0, 0, []
    for reply in replies:
        if reply.status != 200:
            errors += 1
        elif not _is_right(plan, reply, names[reply.picture], found):
            wrong += 1
        elif since <= reply.ended <= since + plan.seconds:
            good.append(1000 * (reply.ended - reply.begun))
    good.sort()
    times = {f"p{share}_ms": percentile(good, share / 100) if good else None for share in (50, 95, 99)}
    told = next((reply.body[:200].decode("utf-8", "replace") for reply in replies if reply.status != 200), None)
    counts = {"answers": len(good), "errors": errors, "wrong": wrong, "first_error": told}
    return {"rate": len(good) / plan.seconds, **times, **counts, "best": found}


def _is_right(plan: Plan, reply: Reply, name: str, found: dict[str, str]) -> bool:
    try:
        label = best(reply.body, plan.outputs, plan.classes)
    except (ValueError, KeyError, TypeError):
        return False
    return found.setdefault(name, label) == label


if __name__ == "__main__":
    main(Plan(**json.loads(sys.argv[1])))
