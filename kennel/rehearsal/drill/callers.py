"""The callers of endpoint or function in a drill: so many requests in each simulated minute, each answer looked at."""

import base64
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

from kennel.rehearsal.cloud.simulated_time import SimulatedTime


@dataclass(frozen=True)
class Traffic:
    """`requests` in a minute, `at_a_time` of them side by side."""

    name: str
    requests: int
    at_a_time: int


TRAFFIC = (
    Traffic("night", 0, 1),  # nobody calls
    Traffic("normal", 60, 8),
    Traffic("busy", 200, 100),  # more at a time than the servers take: some are refused as busy
)


class Callers:
    """Ask with `ask`, which returns a picture's label, "busy" or "failed", in each minute that `time` has.

    `counts`, by minute, have requests, failed (wrong ones too) and busy.
    """

    def __init__(self, ask: Callable[[bytes], str], pictures: Sequence[tuple[bytes, str]], time: SimulatedTime) -> None:
        self._ask, self._time = ask, time
        self._pictures = itertools.cycle(pictures)
        self._pool = ThreadPoolExecutor(max(one.at_a_time for one in TRAFFIC))
        self.traffic = TRAFFIC[0]
        self.counts: dict[int, Counter[str]] = {}
        time.during.append(self._minute)

    def between(self, first: int, last: int) -> Counter[str]:
        """Return the sums over the minutes from `first` on and before `last`."""
        found: Counter[str] = Counter()
        for minute in range(first, last):
            found += self.counts.get(minute, Counter())
        return found

    def _minute(self) -> None:
        """Send the requests of a minute and wait for all answers."""
        counts = self.counts[self._time.minute] = Counter(requests=self.traffic.requests)
        for first in range(0, self.traffic.requests, self.traffic.at_a_time):
            size = min(self.traffic.at_a_time, self.traffic.requests - first)
            outcomes = self._pool.map(self._outcome, [next(self._pictures) for _ in range(size)])
            counts.update(outcome for outcome in outcomes if outcome)

    def close(self) -> None:
        self._pool.shutdown()

    def _outcome(self, picture: tuple[bytes, str]) -> str:
        body, label = picture
        said = self._ask(body)
        return "" if said == label else "busy" if said == "busy" else "failed"


def of_endpoint(invoke: Callable[..., Any], endpoint: str) -> Callable[[bytes], str]:
    """Return what asks an endpoint with `invoke`, a boto3 client's invoke_endpoint."""

    def ask(body: bytes) -> str:
        try:
            answer = invoke(EndpointName=endpoint, Body=body, ContentType="image/jpeg")
            said = json.loads(answer["Body"].read())
        except ClientError as error:
            return "busy" if '"busy"' in str(error.response.get("OriginalMessage", "")) else "failed"
        except BotoCoreError:
            return "failed"
        return str(max(zip(said["probabilities"], said["classes"], strict=True))[1])

    return ask


def of_function(invoke: Callable[..., Any], arn: str) -> Callable[[bytes], str]:
    """Return what asks a function with `invoke`, a boto3 client's invoke."""

    def ask(body: bytes) -> str:
        try:
            answer = invoke(FunctionName=arn, Payload=json.dumps({"image": base64.b64encode(body).decode()}))
            said = json.loads(answer["Payload"].read())
        except ClientError as error:
            return "busy" if error.response["Error"]["Code"] == "TooManyRequestsException" else "failed"
        except BotoCoreError:
            return "failed"
        if said.get("error", {}).get("code") == "endpoint_throttled":
            return "busy"
        return str(said["predictions"][0]["label"]) if "predictions" in said else "failed"

    return ask
