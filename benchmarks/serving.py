"""Servers side by side on this machine: Kennel's, FastAPI's and LitServe's. `--json FILE` writes the figures.

ResNet-50 at 224 with random weights; load from a process of its own, over kept connections, with whole photographs.
Every answer is looked at. The bound is what the cores could do if nothing but decoding, resizing and the model cost.
ratio_best_peer compares Kennel's server at four connections with the best that any peer reached at any number of them.
A rented machine's cores are not always equally fast: all servers are measured in rounds, and a figure is their median.
"""

import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# As `python -m` has it: so that `benchmarks` and the server's own modules are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib import (  # noqa: E402
    processes,
    report,
    servers_compared,
)
from benchmarks.lib.photographs import files, photographs  # noqa: E402
from benchmarks.lib.processes import NotServed, Running, output_of, result_of, running, start_module  # noqa: E402
from benchmarks.lib.report import Figures, parser, print_table, print_targets, write_json  # noqa: E402
from benchmarks.lib.servers_compared import KENNEL, PEERS, PRECISIONS, Compared, best_class  # noqa: E402
from benchmarks.lib.serving_programs import Settings  # noqa: E402

CONNECTIONS = (1, 4, 16)
AT = "4"  # connections at which Kennel's server is judged
ROUNDS = 3  # through all servers, each started anew
WARM = 2.0  # seconds of load before the counted ones
TARGETS = {
    "ratio_best_peer_bf16": "at least 3",
    "ratio_best_peer_int8": "at least 4",
    "bound_fraction": "at least 0.9",
    "p99_over_p50": "at most 3",
    "first_answer_seconds": "at most 1",
    "installed_mb": "at most 180",
}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--photos", type=Path, help="folder of pictures to send (default: made ones)")
    made.add_argument("--seconds", type=float, default=5.0, help="counted load of each kind, in each round (default 5)")
    arguments = made.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and files go, as after Ctrl-C
    with tempfile.TemporaryDirectory(prefix="kennel-serving-") as folder:
        figures = measure(arguments.photos, arguments.seconds, Path(folder))
    show(figures)
    write_json(figures, arguments.json)


def measure(photos: Path | None, seconds: float, folder: Path) -> Figures:
    """Run everything, one after the other, and return all figures."""
    sent = photographs(folder / "photos", photos)
    models = folder / "models"
    models.mkdir()
    output_of(start_module("serving_programs", "models", str(sent), str(models)))
    expected = json.loads((models / "expected.json").read_text())
    rounds = [_round(models, sent, seconds, folder / f"round{number}", expected) for number in range(ROUNDS)]
    sizes = [file.stat().st_size for file in files(sent)]
    pictures = {"count": len(sizes), "median_bytes": statistics.median_high(sizes), "made": photos is None}
    figures = {
        "machine": report.describe_machine(),
        "seconds": seconds,
        "pictures": pictures,
        "servers": medians(rounds),
    }
    targets: Figures = medians([summary(one) for one in rounds])
    return figures | targets | {"installed_mb": servers_compared.kennel_megabytes()}


def _round(models: Path, sent: Path, seconds: float, folder: Path, expected: dict[str, str]) -> Figures:
    """Return each server's figures by its name."""
    servers: Figures = {}
    try:
        for compared in servers_compared.servers_compared(models):
            print(f"{folder.name}: {compared.name} ...", file=sys.stderr, flush=True)
            servers[compared.name] = _measured(compared, models, sent, seconds, folder / compared.name, expected)
    except NotServed as error:
        servers |= {name: {"why": str(error)} for name in PEERS}
    return servers


def _measured(
    compared: Compared, models: Path, sent: Path, seconds: float, folder: Path, expected: dict[str, str]
) -> Figures:
    """Return one server's figures; `why` alone where it is not to be had here."""
    server, body = compared.server, processes.body_of(files(sent)[0].read_bytes(), compared.server.json_field)
    try:
        with running(server, folder, body, best_class) as here:
            chosen = here.logged("precision")
            if compared.precision and chosen != compared.precision:
                raise NotServed(f"not offered: the server chose {chosen}")
            loads = _loads(compared, here, sent, seconds)
    except NotServed as error:
        return {"why": str(error)}
    for load in loads.values():
        best = load.pop("best")
        load["agreement"] = statistics.fmean(expected[name] == best[name] for name in best) if best else None
    figures = {"first_answer_seconds": here.first_answer, "loads": loads}
    if compared.precision:
        figures["bound"] = _bound(models, compared.name.removeprefix(KENNEL), sent, seconds)
    return figures


def _loads(compared: Compared, here: Running, sent: Path, seconds: float) -> dict[str, Any]:
    loads = {}
    for connections in CONNECTIONS:
        url = f"http://127.0.0.1:{here.port}{compared.server.path}"
        settings = Settings(url, str(sent), connections, WARM, seconds, compared.server.json_field)
        before = processes.cpu_seconds(here.pid)
        with processes.peak_memory(here.pid) as peak:
            found = result_of(start_module("serving_programs", "load", json.dumps(asdict(settings))))
        spent = processes.cpu_seconds(here.pid) - before
        found["server_cpu"] = spent / found["took"] / len(os.sched_getaffinity(0))
        loads[str(connections)] = found | {"memory_mib": peak[0]}
    return loads


def _bound(models: Path, precision: str, sent: Path, seconds: float) -> Figures:
    """Return the answers a second that all cores could give, and the milliseconds of one on one core.

    Those once with the other cores idle, once with all of them busy.
    """
    cores = sorted(os.sched_getaffinity(0))
    variables = servers_compared.kennel_variables(models, precision)

    def on(chosen: list[int]) -> list[Figures]:
        programs = [("bound", str(sent), str(core), str(seconds)) for core in chosen]
        children = [start_module("serving_programs", *program, **variables) for program in programs]
        return [result_of(child) for child in children]

    alone = on(cores[:1])[0]
    together = statistics.fmean(one["total"] for one in on(cores))
    rates = {"rate": 1000 * len(cores) / alone["total"], "busy_rate": 1000 * len(cores) / together}
    return {"milliseconds": alone, "busy_milliseconds": together, **rates}


def medians(rounds: Sequence[Any]) -> Any:
    """Return figures of the rounds' shape: of numbers the median, of counted errors and wrong answers the sum.

    Where a round has none (a server that did not start, no answer), the others' count.
    """
    there = [one for one in rounds if one is not None and not (isinstance(one, dict) and "why" in one)]
    if not there:
        return rounds[0]
    if isinstance(there[0], dict):
        return {name: _merged(name, [one[name] for one in there]) for name in there[0]}
    return statistics.median(there) if isinstance(there[0], int | float) else there[0]


def _merged(name: str, values: Sequence[Any]) -> Any:
    return sum(values) if name in ("errors", "wrong") else medians(values)


def summary(servers: Figures) -> Figures:
    """Return what the targets are about, at four connections; of several precisions the worst.

    None where a server was not to be had.
    """
    there = {name: found for name, found in servers.items() if "why" not in found}
    ours = {short: there[KENNEL + short] for short in PRECISIONS if KENNEL + short in there}
    at = {name: found["loads"][AT] for name, found in ours.items()}
    peers = [load["rate"] for name in PEERS if name in there for load in there[name]["loads"].values()]
    best = max(peers, default=0.0)
    bounds = {name: at[name]["rate"] / found["bound"]["rate"] for name, found in ours.items()}
    tails = {name: load["p99_ms"] / load["p50_ms"] for name, load in at.items() if load["p50_ms"]}
    ratios = {short: at[short]["rate"] / best if short in at and best else None for short in PRECISIONS}
    return {
        "ratio_best_peer": ratios,
        **{f"ratio_best_peer_{short}": ratio for short, ratio in ratios.items()},
        "bound_fraction": min(bounds.values(), default=None),
        "bound_fraction_of": bounds,
        "p99_over_p50": max(tails.values(), default=None),
        "p99_over_p50_of": tails,
        "first_answer_seconds": max((found["first_answer_seconds"] for found in ours.values()), default=None),
    }


def show(figures: Figures) -> None:
    pictures = figures["pictures"]
    kind = "made pictures" if pictures["made"] else "photographs"
    print(f"{figures['machine']}\n")
    print(f"ResNet-50 at 224, {pictures['count']} {kind}, {pictures['median_bytes'] / 1000:.0f} kB at the median")
    there = {name: found for name, found in figures["servers"].items() if "why" not in found}
    print_table(
        f"{ROUNDS} rounds, {figures['seconds']:g} s of each load",
        ("server", "connections", "answers/s", "p50 ms", "p95 ms", "p99 ms", "MiB", "errors", "wrong", "CPU", "load's"),
        [
            (name, connections, *_load_row(load))
            for name, found in there.items()
            for connections, load in found["loads"].items()
        ],
    )
    # Random weights: rounding hurts their best classes more than those of trained ones.
    print_table(
        "Start, agreement, one core alone",
        ("server", "first answer s", "best class as torch", "decode ms", "resize ms", "model ms", "bound/s"),
        [(name, *_start_row(found)) for name, found in there.items()],
    )
    for name, found in figures["servers"].items():
        if "why" in found:
            print(f"{name}: {found['why']}")
    print_targets(figures, TARGETS)


def _load_row(load: Figures) -> tuple[Any, ...]:
    times = [load[key] for key in ("rate", "p50_ms", "p95_ms", "p99_ms")]
    shares = (f"{load['server_cpu']:.0%}", f"{load['load_cpu']:.0%}")
    return (*times, f"{load['memory_mib']:.0f}", load["errors"], load["wrong"], *shares)


def _start_row(found: Figures) -> tuple[Any, ...]:
    agreement = found["loads"][AT]["agreement"]
    bound = found.get("bound")
    parts = [bound["milliseconds"][part] for part in ("decode", "resize", "model")] if bound else [None] * 3
    share = None if agreement is None else f"{agreement:.0%}"
    return (found["first_answer_seconds"], share, *parts, bound and bound["rate"])


if __name__ == "__main__":
    main()
