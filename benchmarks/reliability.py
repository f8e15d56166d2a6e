"""Load on the rehearsal's whole stack while it breaks. `--json FILE` writes the figures.

Invoke (half with the HTTP API's event) -> the function under Lambda's own runtime client -> a proxy that throttles,
resets and delays calls -> the embedded InvokeEndpoint -> two real servers, killed every few seconds. Each answer is
compared with one that was computed beforehand. Exit status 1: a request was lost or answered wrong.
"""

import base64
import json
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError  # type: ignore[import-untyped]

# As `python -m` has it: so that `benchmarks` and `kennel` are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib.fault_proxy import Mix  # noqa: E402
from benchmarks.lib.report import Cell, Figures, describe_machine, parser, print_table, write_json  # noqa: E402
from benchmarks.lib.stack_under_load import Picture, killing, pictures, released  # noqa: E402
from kennel.loadtest.load import closed_loop, percentile  # noqa: E402

CALLERS = 100  # the Prod stage's reserved concurrency
RAMP = 0.25  # seconds for each caller to join: its sandbox must start within Lambda's 10 s
# The errors that a good picture may get (docs/contracts/lambda-api.md).
_DOCUMENTED = {
    ("endpoint_throttled", 503),
    ("endpoint_unavailable", 503),
    ("bad_answer", 502),
    ("internal_error", 500),
    ("TooManyRequestsException", 429),  # Lambda's own, beyond the reserved concurrency
}
_RETRYABLE = (429, 503)
_DIRECT_PAUSE = 2.0  # seconds; a direct invocation has no Retry-After
_TRIES = 20  # requests for one picture


def main() -> int:
    made = parser(__doc__)
    made.add_argument("--seconds", type=float, default=120, help="of load (default 120)")
    made.add_argument("--callers", type=int, default=CALLERS, help=f"at a time (default {CALLERS})")
    made.add_argument("--kill-every", type=float, default=20, metavar="SECONDS", help="(default 20)")
    arguments = made.parse_args()
    # urllib3 would log each connection beyond those that it keeps.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="kennel-load-") as folder:
        found = measure(Path(folder), arguments.callers, arguments.seconds, arguments.kill_every, Mix())
    show(found)
    write_json(found, arguments.json)
    return 1 if found["lost"] or found["wrong"] else 0


def measure(work: Path, callers: int, seconds: float, kill_every: float, mix: Mix) -> Figures:
    """Return the figures of so many callers, who join within RAMP seconds each and then go on for `seconds`.

    Each has one request at a time, and sends a picture until it is answered; every second one sends the HTTP API's
    event.
    """
    ramp, sent = RAMP * callers, pictures(40)
    chances = [random.Random(number) for number in range(callers)]
    with released(work, mix, callers) as stack, killing(kill_every, ramp + seconds - kill_every / 2) as kills:
        ask = asking(stack.client, stack.function)

        def one_picture(caller: int, turn: int) -> Tries:
            return until_answered(ask, chances[caller].choice(sent), caller % 2 == 1, chances[caller])

        since = time.monotonic() + ramp
        found = closed_loop(one_picture, callers, seconds, ramp=ramp, most=10**9)
    about = {"machine": describe_machine(), "callers": callers, "seconds": seconds}
    return about | summary(found, since, kills, stack.proxy.counts)


@dataclass(frozen=True)
class Reply:
    """`status` 0: there was none, and `value` is whatever came instead. `retry_after`: in seconds."""

    status: int
    value: Any
    retry_after: float | None = None


@dataclass(frozen=True)
class Request:
    """`outcome`: right, wrong, lost, or the error's code. Times in seconds of time.monotonic()."""

    begun: float
    ended: float
    outcome: str
    answer: str  # what was not right


Ask = Callable[[Picture, bool], Reply]  # whether with the HTTP API's event


def asking(client: Any, function: str) -> Ask:
    """Return a function that calls Invoke with the event of a direct caller or of the HTTP API (payload 2.0)."""

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


def outcome_of(reply: Reply, picture: Picture) -> str:
    """Return the request's outcome. An error that blames a good picture, or that no table has, is a wrong answer."""
    if reply.status == 0:
        return "lost"
    if reply.status == 200:
        return "right" if picture.fits(reply.value) else "wrong"
    code = reply.value["error"]["code"]
    if (code, reply.status) == picture.refusal:
        return "right"
    return code if (code, reply.status) in _DOCUMENTED else "wrong"


Tries = tuple[list[Request], float | None]
"""All requests for one picture, and the seconds from the first to the right answer (None: it never came)."""


def until_answered(ask: Ask, picture: Picture, http: bool, chance: random.Random) -> Tries:
    """Send a picture until it is answered, waiting as callers are told to."""
    requests: list[Request] = []
    first = time.monotonic()
    for _ in range(_TRIES):
        begun = time.monotonic()
        reply = ask(picture, http)
        ended = time.monotonic()
        outcome = outcome_of(reply, picture)
        requests.append(Request(begun, ended, outcome, "" if outcome == "right" else str(reply.value)[:300]))
        if outcome == "right":
            return requests, ended - first
        if reply.status not in _RETRYABLE or outcome == "wrong":
            break
        time.sleep(_DIRECT_PAUSE if reply.retry_after is None else reply.retry_after + chance.random())
    return requests, None


def summary(
    found: Sequence[Tries], since: float, kills: Sequence[tuple[float, int]], injected: Counter[str]
) -> Figures:
    """Return counts and times in seconds, those of answers only `since` all callers had joined.

    `since` and the kills' times in seconds of time.monotonic(); a kill has the number of servers too.
    """
    requests = [request for tries, _ in found for request in tries]
    outcomes = Counter(request.outcome for request in requests)
    answered = [one for one in requests if one.outcome == "right"]
    right = sorted(one.ended - one.begun for one in answered if one.begun >= since)
    whole = sorted(took for _, took in found if took is not None)
    return {
        "requests": len(requests),
        "right": outcomes.pop("right", 0),
        "wrong": outcomes.pop("wrong", 0),
        "lost": outcomes.pop("lost", 0),
        "errors": dict(outcomes),
        "pictures": len(found),
        "never_answered": len(found) - len(whole),
        "retries": len(requests) - len(found),
        "answer_p50": percentile(right, 0.5) if right else None,
        "answer_p99": percentile(right, 0.99) if right else None,
        "picture_p99": percentile(whole, 0.99) if whole else None,
        "kills": [{"servers": count, "recovered": _recovery(answered, when)} for when, count in kills],
        "injected": dict(injected),
        "told": sorted({one.answer for one in requests if one.outcome in ("wrong", "lost")})[:5],
    }


def _recovery(answered: Sequence[Request], when: float) -> float | None:
    """Return the seconds from a kill to the first right answer to a request that was begun after it."""
    return min((one.ended - when for one in answered if one.begun >= when), default=None)


def show(figures: Figures) -> None:
    print(f"{figures['machine']}\n{figures['callers']} callers for {figures['seconds']:g} s after all had joined\n")
    counts = ("requests", "right", "wrong", "lost", "pictures", "never_answered", "retries")
    rows: list[tuple[str, Cell]] = [(name.replace("_", " "), figures[name]) for name in counts]
    print_table("Requests", ("", "count"), rows + [(f"error {code}", n) for code, n in figures["errors"].items()])
    times = ("answer_p50", "answer_p99", "picture_p99")
    recovered = [(f"{kill['servers']} killed, next right answer", kill["recovered"]) for kill in figures["kills"]]
    print_table("Seconds", ("", "s"), [(name.replace("_", " "), figures[name]) for name in times] + recovered)
    print_table("Calls of the endpoint", ("", "count"), sorted(figures["injected"].items()))
    for text in figures["told"]:
        print(f"answer: {text}")


if __name__ == "__main__":
    sys.exit(main())
