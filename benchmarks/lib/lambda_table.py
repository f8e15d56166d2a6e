"""The figures of the cold-start benchmark: what follows from them, and the tables that are printed."""

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.lib.report import Figures, print_table, print_targets

NOTHING, PLAIN, CALLING = "does nothing", "boto3 client", "boto3 client and call"
COMPILED, SOURCE = "Kennel, compiled", "Kennel, source only"
PARTS = ("start", "import", "runtime", "client", "first request", "answer")
TARGETS = {"cold_ratio": "at most 0.75", "warm_overhead_ms": "at most 2", "package_kb": "under 200"}


def parts(started: float, clock: Mapping[str, float], answered: float) -> dict[str, float]:
    """Return the milliseconds of one cold start in order; their sum is the whole. Arguments in seconds of one clock.

    start: the interpreter and the runtime client; import: the package and what it imports; runtime: until the handler
    has the event; client: making a boto3 client; first request: the rest of it, with the endpoint's answer.
    """
    seconds = {
        "start": clock["begun"] - started,
        "import": clock["imported"] - clock["begun"],
        "runtime": clock["called"] - clock["imported"],
        "client": clock["client"],
        "first request": clock["answered"] - clock["called"] - clock["client"],
        "answer": answered - clock["answered"],
    }
    return {name: 1000 * taken for name, taken in seconds.items()}


def overhead(function: Sequence[float], endpoint: Sequence[float]) -> float:
    """Return the median of what each answer took beyond the endpoint's time. Raise ValueError unless they pair."""
    return statistics.median(mine - its for mine, its in zip(function, endpoint, strict=True))


def summary(figures: Figures) -> Figures:
    """Return medians and ratios; cold_ratio is that of the package as deployed, with or without compiled files."""
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
    print(f"{figures['machine']}\n")
    medians = figures["cold_median_ms"]
    print_table(
        "Process start to first answer, ms",
        ("function", "median", "least", "most", "over boto3"),
        [
            (name, medians[name], min(ms), max(ms), medians[name] / medians[PLAIN])
            for name, ms in figures["cold_ms"].items()
        ],
    )
    print_table("Parts of it, ms", ("part", "median"), figures["parts"].items())
    columns = ("answer_ms", "beyond_endpoint_ms", "beyond_direct_ms")
    print_table(
        "Warm, median ms",
        ("function", "answer", "beyond the endpoint", "beyond a direct call"),
        [(name, *(warm[column] for column in columns)) for name, warm in figures["warm"].items()],
    )
    print(
        f"the stub endpoint itself {figures['endpoint_ms']:.2f} ms, a direct call of it {figures['direct_ms']:.2f} ms"
    )
    sizes = ", ".join(f"{name} {size:.0f} kB" for name, size in figures["kilobytes"].items())
    print(f"package: {sizes}; deployed {'with' if figures['deployed_compiled'] else 'without'} compiled files\n")
    print_targets(figures, TARGETS)
