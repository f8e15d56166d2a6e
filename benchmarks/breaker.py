"""Whether a circuit breaker in the function would help: a simulation of two minutes.

A sandbox has one call at a time and shares nothing with the others, so a breaker can only learn from the calls of its
own sandbox. 100 sandboxes, as at the Prod stage's reserved concurrency, each get the next call about a second after
the last. The function tries a call up to four times (lambda/classify/sagemaker_runtime.py). No caller comes back.
"""

import random
from dataclasses import dataclass

SANDBOXES, SECONDS, GAP = 100, 120.0, 1.0
ANSWER, REFUSED = 0.1, 0.01  # seconds of a good try, and of one that fails by chance
TRIES, DEADLINE = 4, 28.5  # of one call; seconds
BY_CHANCE = 0.06  # share of tries: 5 % throttled, 1 % reset
OPEN = 5.0  # seconds for which a breaker refuses; as long as Retry-After says


@dataclass(frozen=True)
class Outage:
    """From `start` for `length` seconds, again after `every`; a try meanwhile fails after `fails` seconds."""

    start: float
    length: float
    every: float
    fails: float

    def holds(self, moment: float) -> bool:
        return moment >= self.start and (moment - self.start) % self.every < self.length


@dataclass
class Count:
    """`refused_in_vain`: by an open breaker while the endpoint was well; `wasted`: seconds of calls that failed."""

    answers: int = 0
    errors: int = 0
    refused: int = 0
    refused_in_vain: int = 0
    tries_in_outage: int = 0
    wasted: float = 0.0


OUTAGES = {
    "killed each 20 s, back after 3 s": Outage(10, 3, 20, 0.02),
    "down for 60 s": Outage(20, 60, 1e9, 0.02),
    "silent for 60 s": Outage(20, 60, 1e9, DEADLINE),
}
BREAKERS = {"never": 0, "after 1 failed call": 1, "after 3 failed calls": 3}


def simulate(outage: Outage, threshold: int, seed: int = 0) -> Count:
    """`threshold`: failed calls in a row after which a sandbox refuses for `OPEN` seconds; 0: never."""
    count, chance = Count(), random.Random(seed)
    for _ in range(SANDBOXES):
        now, failed, shut_until = chance.uniform(0, GAP), 0, 0.0
        while now < SECONDS:
            began = now
            if now < shut_until:
                count.refused += 1
                count.refused_in_vain += not outage.holds(now)
            else:
                now, good = _call(now, outage, count, chance)
                failed = 0 if good else failed + 1
                shut_until = now + OPEN if threshold and failed >= threshold else 0.0
                count.answers += good
                count.errors += not good
                count.wasted += 0.0 if good else now - began
            now += chance.expovariate(1 / GAP)
    return count


def _call(now: float, outage: Outage, count: Count, chance: random.Random) -> tuple[float, bool]:
    """When the function's tries ended, and whether with an answer."""
    end = now + DEADLINE
    for attempt in range(TRIES):
        down = outage.holds(now)
        count.tries_in_outage += down
        if not down and chance.random() >= BY_CHANCE:
            return now + ANSWER, True
        now += min(outage.fails, end - now) if down else REFUSED
        pause = chance.uniform(0, 0.1 * 2**attempt)
        if attempt == TRIES - 1 or now + pause >= end:
            break
        now += pause
    return now, False


def main() -> None:
    names = ("answers", "errors", "refused", "in vain", "vain tries", "vain s")
    print(f"{'the breaker opens':<24}" + "".join(f"{name:>12}" for name in names))
    for name, outage in OUTAGES.items():
        print(name)
        for breaker, threshold in BREAKERS.items():
            count = simulate(outage, threshold)
            numbers = (count.answers, count.errors, count.refused, count.refused_in_vain, count.tries_in_outage)
            print(f"  {breaker:<22}" + "".join(f"{number:>12,}" for number in (*numbers, round(count.wasted))))


if __name__ == "__main__":
    main()
