"""The callers of an endpoint during a drill: so many requests in each simulated minute, each answer looked at."""

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
    """Ask with `invoke`, a boto3 client's invoke_endpoint, in each minute that `time` has.

    `counts`, by minute, have requests, failed (wrong ones too) and busy.
    """

    def __init__(
        self, invoke: Callable[..., Any], endpoint: str, pictures: Sequence[tuple[bytes, str]], time: SimulatedTime
    ) -> None:
        self._invoke, self._endpoint, self._time = invoke, endpoint, time
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
            outcomes = self._pool.map(self._ask, [next(self._pictures) for _ in range(size)])
            counts.update(outcome for outcome in outcomes if outcome)

    def close(self) -> None:
        self._pool.shutdown()

    def _ask(self, picture: tuple[bytes, str]) -> str:
        body, label = picture
        try:
            answer = self._invoke(EndpointName=self._endpoint, Body=body, ContentType="image/jpeg")
            said = json.loads(answer["Body"].read())
        except ClientError as error:
            text = str(error.response.get("OriginalMessage", ""))
            return "busy" if '"busy"' in text else "failed"
        except BotoCoreError:
            return "failed"
        best = max(zip(said["probabilities"], said["classes"], strict=True))[1]
        return "" if best == label else "failed"
