"""Callers of the classify function who come back when they are told to, and what became of each of their requests."""

import base64
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from benchmarks.lib.toy_model import Picture

# docs/architecture.md; what a caller may be told of a picture that is fine.
DOCUMENTED = {
    ("endpoint_throttled", 503),
    ("endpoint_unavailable", 503),
    ("bad_answer", 502),
    ("internal_error", 500),
    ("TooManyRequestsException", 429),  # Lambda's own, beyond the reserved concurrency
}
_AGAIN = (429, 503)
_DIRECT_PAUSE = 2.0  # seconds; a direct invocation has no Retry-After
_MOST = 20  # requests for one picture


@dataclass(frozen=True)
class Reply:
    """`status` 0: there was none, and `value` is whatever came instead. `after`: Retry-After in seconds."""

    status: int
    value: Any
    after: float | None = None


@dataclass(frozen=True)
class Request:
    """`outcome`: right, wrong, lost, or the error's code. Times in seconds of time.monotonic()."""

    begun: float
    ended: float
    outcome: str
    said: str  # of what was not right


@dataclass
class Found:
    """`since`: when the last caller had joined, in seconds of time.monotonic().

    `pictures`: seconds from the first request for a picture to its right answer; None: it never came.
    """

    since: float
    requests: list[Request] = field(default_factory=list)
    pictures: list[float | None] = field(default_factory=list)


Ask = Callable[[Picture, bool], Reply]  # whether as the HTTP API asks


def asking(client: Any, function: str) -> Ask:
    """Through Invoke, with the event of a direct caller or of the HTTP API (payload 2.0)."""

    def ask(picture: Picture, http: bool) -> Reply:
        try:
            answer = client.invoke(FunctionName=function, Payload=_event(picture, http))
            value = json.loads(answer["Payload"].read())
        except ClientError as error:
            about = error.response["Error"]
            return Reply(error.response["ResponseMetadata"]["HTTPStatusCode"], {"error": {"code": about["Code"]}})
        except Exception as error:  # whatever breaks the way to an answer loses the request
            return Reply(0, repr(error))
        return Reply(0, value) if "FunctionError" in answer else _reply(value, http)

    return ask


def _event(picture: Picture, http: bool) -> bytes:
    text = base64.b64encode(picture.body).decode()
    if not http:
        return json.dumps({"image": text}).encode()
    event = {"version": "2.0", "requestContext": {"http": {"method": "POST", "path": "/classify"}}}
    return json.dumps(
        event | {"headers": {"content-type": "image/jpeg"}, "body": text, "isBase64Encoded": True}
    ).encode()


def _reply(value: Any, http: bool) -> Reply:
    if http:
        after = value["headers"].get("retry-after")
        return Reply(value["statusCode"], json.loads(value["body"]), float(after) if after else None)
    return Reply(value["error"]["status"] if "error" in value else 200, value)


def judge(reply: Reply, picture: Picture) -> str:
    """The request's outcome. An error that blames a good picture, or that no table has, is a wrong answer."""
    if reply.status == 0:
        return "lost"
    if reply.status == 200:
        return "right" if picture.fits(reply.value) else "wrong"
    code = reply.value["error"]["code"]
    if (code, reply.status) == picture.refusal:
        return "right"
    return code if (code, reply.status) in DOCUMENTED else "wrong"


def load(ask: Ask, pictures: Sequence[Picture], callers: int, seconds: float, ramp: float) -> Found:
    """So many callers, each with one request at a time, who join within `ramp` seconds; the odd ones use HTTP's event.

    A picture that was begun within the `seconds` after that is seen through to its end.
    """
    found, lock = Found(time.monotonic() + ramp), threading.Lock()
    until = found.since + seconds

    def call(number: int) -> None:
        chance = random.Random(number)
        time.sleep(ramp * number / callers)
        while time.monotonic() < until:
            requests, took = _see_through(ask, chance.choice(pictures), number % 2 == 1, chance)
            with lock:
                found.requests += requests
                found.pictures.append(took)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _see_through(ask: Ask, picture: Picture, http: bool, chance: random.Random) -> tuple[list[Request], float | None]:
    """All requests for one picture, and the seconds until it was answered right (None: it was not)."""
    requests: list[Request] = []
    first = time.monotonic()
    for _ in range(_MOST):
        begun = time.monotonic()
        reply = ask(picture, http)
        ended = time.monotonic()
        outcome = judge(reply, picture)
        requests.append(Request(begun, ended, outcome, "" if outcome == "right" else str(reply.value)[:300]))
        if outcome == "right":
            return requests, ended - first
        if reply.status not in _AGAIN or outcome == "wrong":
            break
        time.sleep(_DIRECT_PAUSE if reply.after is None else reply.after + chance.random())
    return requests, None
