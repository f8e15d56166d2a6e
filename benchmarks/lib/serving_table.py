"""The figures of the serving benchmark: what follows from them, and the table that is printed."""

from typing import Any

CONNECTIONS = (1, 4, 16)
_AT = "4"  # connections at which servers are compared
_KENNEL = "Kennel, "
_TORCHSERVE = "TorchServe 0.12"
TARGETS = {
    "ratio_bf16": "at least 8",
    "ratio_int8": "at least 10",
    "bound_fraction": "at least 0.9",
    "p99_over_p50": "at most 3",
    "first_answer_seconds": "at most 1",
    "installed_mb": "at most 180",
}

Figures = dict[str, Any]


def summary(figures: Figures) -> Figures:
    """What is asked for, at 4 connections; of several precisions the worst. None where a server was not to be had."""
    there = {name: found for name, found in figures["servers"].items() if "why" not in found}
    rates = {name: found["loads"][_AT]["rate"] for name, found in there.items()}
    ours = {name.removeprefix(_KENNEL): found for name, found in there.items() if name.startswith(_KENNEL)}
    at = {name: found["loads"][_AT] for name, found in ours.items()}
    bounds = {name: at[name]["rate"] / found["bound"]["rate"] for name, found in ours.items()}
    tails = {name: load["p99_ms"] / load["p50_ms"] for name, load in at.items() if load["p50_ms"]}
    ratios = {f"ratio_{name}": _ratio(rates, name) for name in ("f32", "bf16", "int8")}
    return {
        **ratios,
        "bound_fraction": min(bounds.values(), default=None),
        "bound_fraction_of": bounds,
        "p99_over_p50": max(tails.values(), default=None),
        "p99_over_p50_of": tails,
        "first_answer_seconds": max((found["first_answer_seconds"] for found in ours.values()), default=None),
        "installed_mb": max((found["installed_mb"] for found in ours.values()), default=None),
    }


def _ratio(rates: dict[str, float], precision: str) -> float | None:
    ours, theirs = rates.get(f"{_KENNEL}{precision}"), rates.get(_TORCHSERVE)
    return ours / theirs if ours is not None and theirs else None


def show(figures: Figures) -> None:
    """Print the table, at most 100 columns wide."""
    pictures = figures["pictures"]
    kind = "made pictures" if pictures["made"] else "photographs"
    print(f"{figures['machine']}\n")
    print(f"ResNet-50 at 224, {pictures['count']} {kind}, {pictures['median_bytes'] / 1000:.0f} kB at the median,")
    print(f"{figures['seconds']:g} s of each load\n")
    _show_loads(figures["servers"])
    _show_servers(figures["servers"])
    print("as torch: best classes that are torch's in float32 (random weights: rounding hurts them more")
    print("than trained ones); ms: decode + resize + model\n")
    for name, target in TARGETS.items():
        print(f"{name:<22} {_number(figures[name], 2):>8}   {target} is wanted")


def _show_loads(servers: Figures) -> None:
    head = ("answers/s", "p50 ms", "p95 ms", "p99 ms", "MiB", "errors", "wrong", "CPU", "load's")
    print(f"{'server':<18} {'conn':>4} " + " ".join(f"{name:>{_width(name)}}" for name in head))
    for name, found in servers.items():
        if "why" in found:
            print(f"{name:<18}    - {found['why'][:75]}")
        for connections, load in found.get("loads", {}).items():
            times = [_number(load[f"p{share}_ms"], 1) for share in (50, 95, 99)]
            cells = [f"{load['rate']:.1f}", *times, f"{load['memory_mib']:.0f}", str(load["errors"])]
            cells += [str(load["wrong"]), f"{load['server_cpu']:.0%}", f"{load['load_cpu']:.0%}"]
            row = " ".join(f"{cell:>{_width(name)}}" for cell, name in zip(cells, head, strict=True))
            print(f"{name:<18} {connections:>4} {row}")
    print()


def _width(name: str) -> int:
    return max(6, len(name))


def _show_servers(servers: Figures) -> None:
    head = f"{'server':<18} {'first answer s':>14} {'installed MB':>12} {'as torch':>8}"
    print(f"{head}   one core alone: ms, bound of all")
    for name, found in servers.items():
        if "why" in found:
            continue
        cells = [f"{found['first_answer_seconds']:>14.2f}", f"{found['installed_mb']:>12.0f}"]
        agreement = found["loads"][_AT]["agreement"]
        cells += [f"{'null' if agreement is None else f'{agreement:.0%}':>8}"]
        print(f"{name:<18} {' '.join(cells)}   {_bound(found['bound']) if 'bound' in found else ''}".rstrip())
    print()


def _bound(bound: Figures) -> str:
    decode, resize, model = (bound["milliseconds"][part] for part in ("decode", "resize", "model"))
    return f"{decode:.1f} + {resize:.1f} + {model:.1f}: {bound['rate']:.0f}/s"


def _number(value: float | None, digits: int) -> str:
    return "null" if value is None else f"{value:.{digits}f}"
