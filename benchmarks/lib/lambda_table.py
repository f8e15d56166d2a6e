"""The figures of the cold-start benchmark: what follows from them, and the table that is printed."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

NOTHING, PLAIN, CALLING = "does nothing", "boto3 client", "boto3 client and call"
COMPILED, SOURCE = "Kennel, compiled", "Kennel, source only"
PARTS = ("start", "import", "runtime", "client", "first request", "answer")
TARGETS = {"cold_ratio": "at most 0.65", "warm_overhead_ms": "under 2", "package_kb": "under 200"}

Figures = dict[str, Any]


def parts(started: float, told: Mapping[str, float], answered: float) -> dict[str, float]:
    """Milliseconds of one cold start, in order; all of them are the whole. Arguments in seconds of one clock.

    start: the interpreter and the runtime client; import: our modules and what they import; runtime: until the event
    is ours; client: making boto3's, wherever it happens; first request: the rest of it, the endpoint's answer included.
    """
    seconds = {
        "start": told["begun"] - started,
        "import": told["imported"] - told["begun"],
        "runtime": told["asked"] - told["imported"],
        "client": told["client"],
        "first request": told["answered"] - told["asked"] - told["client"],
        "answer": answered - told["answered"],
    }
    return {name: 1000 * taken for name, taken in seconds.items()}


def overhead(function: Sequence[float], endpoint: Sequence[float]) -> float:
    """The median of what each answer took beyond the endpoint's own time; raises ValueError unless they pair."""
    return statistics.median(mine - its for mine, its in zip(function, endpoint, strict=True))


def summary(figures: Figures) -> Figures:
    """cold_ratio is that of the package as it is deployed, with or without compiled files."""
    medians = {name: statistics.median(times) for name, times in figures["cold_ms"].items()}
    ours = COMPILED if figures["deployed_compiled"] else SOURCE
    return {
        "cold_median_ms": medians,
        "cold_ratio": medians[ours] / medians[PLAIN],
        "cold_ratio_compiled": medians[COMPILED] / medians[PLAIN],
        "cold_ratio_source": medians[SOURCE] / medians[PLAIN],
        "cold_ratio_calling": medians[ours] / medians[CALLING],
        "parts": {name: statistics.median(one[name] for one in figures["parts_ms"]) for name in PARTS},
        "package_kb": figures["kilobytes"][COMPILED],
    }


def show(figures: Figures) -> None:
    """Print the tables."""
    deployed = "with" if figures["deployed_compiled"] else "without"
    print(f"{figures['machine']}\n")
    print(f"{'process start to first answer':<30} {'median ms':>9} {'min':>7} {'max':>7} {'over boto3':>10}")
    for name, times in figures["cold_ms"].items():
        median, share = (
            figures["cold_median_ms"][name],
            figures["cold_median_ms"][name] / figures["cold_median_ms"][PLAIN],
        )
        print(f"{name:<30} {median:>9.1f} {min(times):>7.1f} {max(times):>7.1f} {share:>10.2f}")
    print("\nof it, in Kennel's, compiled")
    for name, milliseconds in figures["parts"].items():
        print(f"  {name:<28} {milliseconds:>9.1f}")
    print(f"\n{'warm, median ms':<30} {'answer':>9} {'beyond the endpoint':>20} {'beyond a direct call':>21}")
    for name, warm in figures["warm"].items():
        cells = [warm["answer_ms"], warm["beyond_endpoint_ms"], warm["beyond_direct_ms"]]
        told = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
        print(f"{name:<30} {told[0]:>9} {told[1]:>20} {told[2]:>21}")
    print(f"the stub endpoint itself {figures['endpoint_ms']:.2f}, a direct call of it {figures['direct_ms']:.2f}")
    sizes = ", ".join(f"{name} {size:.0f} kB" for name, size in figures["kilobytes"].items())
    print(f"\npackage: {sizes}; deployed {deployed} compiled files")
    for name, target in TARGETS.items():
        print(f"{name:<18} {figures[name]:>7.2f}   {target} is wanted")
