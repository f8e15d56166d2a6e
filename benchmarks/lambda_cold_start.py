"""Process start to first answer of the classify function, under Lambda's own runtime client. `--json FILE` writes it.

Against a handler that does nothing, and one that imports boto3 and makes its client. Kennel's first answer includes a
call of an endpoint, which a stub on loopback plays. Medians of runs in turns.
"""

import base64
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# As `python -m` has it: so that `benchmarks` and `kennel` are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib import lambda_sandboxes, report  # noqa: E402
from benchmarks.lib.lambda_sandboxes import Function, StubEndpoint, Warm, answered  # noqa: E402
from benchmarks.lib.photographs import files, photographs  # noqa: E402
from benchmarks.lib.report import Figures, print_table, print_targets  # noqa: E402

REQUESTS = 300  # warm ones of each function
WARM_UP = 20  # before them
NOTHING, PLAIN, CALLING = "does nothing", "boto3 client", "boto3 client and call"
KENNEL = "Kennel"
TARGETS = {"cold_ratio": "at most 0.75", "warm_overhead_ms": "at most 2", "package_kb": "under 200"}


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="counted cold starts of each (default 15)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kennel-lambda-") as folder, StubEndpoint() as stub:
        figures = measure(Path(folder), stub, arguments.rounds)
    show(figures)
    report.write_json(figures, arguments.json)


def measure(folder: Path, stub: StubEndpoint, rounds: int) -> Figures:
    asset = lambda_sandboxes.deployed(folder / "cdk.out")
    plain = lambda_sandboxes.plain(folder / "plain")
    functions = {
        NOTHING: ("nothing.handler", plain),
        PLAIN: ("plain.handler", plain),
        CALLING: ("calling.handler", plain),
        KENNEL: ("classify.handler.handler", asset),
    }
    picture = files(photographs(folder / "photos", None, made=1))[0].read_bytes()
    event = json.dumps({"image": base64.b64encode(picture).decode()}).encode()
    figures: Figures = {"machine": report.describe_machine(), "rounds": rounds, "picture_bytes": len(picture)}
    figures["cold_ms"] = _cold(functions, event, stub, rounds)
    figures["warm"] = _warm({name: functions[name] for name in (NOTHING, CALLING, KENNEL)}, event, stub)
    return figures | summary(figures) | {"package_kb": lambda_sandboxes.kilobytes(asset)}


def _cold(functions: dict[str, Function], event: bytes, stub: StubEndpoint, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each round, after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            with answered(function, event, stub.url) as warm:
                taken[name].append(warm.cold)
    return {name: times[1:] for name, times in taken.items()}


def _warm(functions: dict[str, Function], event: bytes, stub: StubEndpoint) -> Figures:
    """Return the milliseconds of an answer, and those beyond the endpoint's own time where it was called."""
    rows = {}
    for name, function in functions.items():
        with answered(function, event, stub.url) as warm:
            times = _times(warm, event, stub)
        its = stub.take_times()
        rows[name] = {
            "answer_ms": statistics.median(times),
            "beyond_endpoint_ms": overhead(times, its) if its else None,
        }
    return rows


def _times(warm: Warm, event: bytes, stub: StubEndpoint) -> list[float]:
    for _ in range(WARM_UP):
        warm.invoke(event)
    stub.take_times()  # drops those of the warm-up
    return [warm.invoke(event) for _ in range(REQUESTS)]


def overhead(function: Sequence[float], endpoint: Sequence[float]) -> float:
    """Return the median of what each answer took beyond the endpoint's time. Raise ValueError unless they pair."""
    return statistics.median(mine - its for mine, its in zip(function, endpoint, strict=True))


def summary(figures: Figures) -> Figures:
    """Return medians and ratios of the package as it is deployed: without compiled files (docs/decisions.md, 21)."""
    medians = {name: statistics.median(times) for name, times in figures["cold_ms"].items()}
    return {
        "cold_median_ms": medians,
        "cold_ratio": medians[KENNEL] / medians[PLAIN],
        "cold_ratio_calling": medians[KENNEL] / medians[CALLING],
        "warm_overhead_ms": figures["warm"][KENNEL]["beyond_endpoint_ms"],
    }


def show(figures: Figures) -> None:
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
    print_table(
        "Warm, median ms",
        ("function", "answer", "beyond the endpoint"),
        [(name, *warm.values()) for name, warm in figures["warm"].items()],
    )
    print_targets(figures, TARGETS)


if __name__ == "__main__":
    main()
