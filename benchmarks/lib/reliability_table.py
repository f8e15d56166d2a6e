"""What became of all requests, as figures and as text."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.lib.callers import Found
from benchmarks.lib.load import percentile

Figures = dict[str, Any]


def figures(found: Found, kills: Sequence[tuple[float, int]], injected: Counter[str]) -> Figures:
    """Times in seconds, those of answers only once all callers had joined. `kills`: (when, how many servers)."""
    outcomes = Counter(request.outcome for request in found.requests)
    counted = [one for one in found.requests if one.begun >= found.since]
    right = sorted(one.ended - one.begun for one in counted if one.outcome == "right")
    whole = sorted(took for took in found.pictures if took is not None)
    return {
        "requests": len(found.requests),
        "right": outcomes.pop("right", 0),
        "wrong": outcomes.pop("wrong", 0),
        "lost": outcomes.pop("lost", 0),
        "errors": dict(outcomes),
        "pictures": len(found.pictures),
        "never_answered": found.pictures.count(None),
        "retries": len(found.requests) - len(found.pictures),
        "answer_p50": percentile(right, 0.5) if right else None,
        "answer_p99": percentile(right, 0.99) if right else None,
        "picture_p99": percentile(whole, 0.99) if whole else None,
        "kills": [{"servers": count, "recovered": _recovery(found, when)} for when, count in kills],
        "injected": dict(injected),
        "told": sorted({r.said for r in found.requests if r.outcome in ("wrong", "lost")})[:5],
    }


def _recovery(found: Found, when: float) -> float | None:
    """From a kill to the first right answer to a request that was begun after it."""
    ended = [one.ended for one in found.requests if one.outcome == "right" and one.begun >= when]
    return min(ended) - when if ended else None


def show(told: Figures) -> None:
    print(f"{told['machine']}\n{told['callers']} callers for {told['seconds']:g} s after all had joined\n")
    rows = {name.replace("_", " "): told[name] for name in ("requests", "right", "wrong", "lost")}
    rows |= {f"error {code}": count for code, count in sorted(told["errors"].items())}
    rows |= {"pictures": told["pictures"], "never answered": told["never_answered"]}
    rows |= {"retries by callers": told["retries"]}
    for name, count in rows.items():
        print(f"{name:<34} {count:>8,}")
    for name, key in (("p50 of right answers", "answer_p50"), ("p99 of right answers", "answer_p99")):
        _print_seconds(name, told[key])
    _print_seconds("p99 of pictures, retries included", told["picture_p99"])
    for least, most in ((1, 1), (2, 99)):
        some = [kill["recovered"] for kill in told["kills"] if least <= kill["servers"] <= most]
        kind = "one server" if most == 1 else "all servers"
        print(f"{'kills of ' + kind:<34} {len(some):>8,}")
        answered = [seconds for seconds in some if seconds is not None]
        if answered:
            _print_seconds("  until the next right answer", statistics.median(answered))
            _print_seconds("  the longest", max(answered))
    calls = sum(told["injected"].values())
    shares = ", ".join(f"{name} {count:,}" for name, count in sorted(told["injected"].items()))
    print(f"calls of the endpoint: {calls:,} ({shares})")
    for text in told["told"]:
        print(f"said: {text}")


def _print_seconds(name: str, seconds: float | None) -> None:
    print(f"{name:<34} {'-' if seconds is None else f'{seconds:.2f}':>8} s")
