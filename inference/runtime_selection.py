"""The selection, once at start, of the export, precision and threads that fit the artifact and this machine."""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.errors import StartError

# Runtime -> precision (fastest first) -> key in model.json's exports.
EXPORTS = {
    "openvino": {"int8": "int8", "bfloat16": "float32", "float32": "float32"},
    "onnxruntime": {"float32": "onnx"},
    "torch": {"bfloat16": "pt2", "float32": "pt2"},
}
PRECISIONS = ("auto", "float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Selection:
    """`export`: the key in the artifact's files; `threads`: pictures computed at a time, one per core."""

    runtime: str
    precision: str
    export: str
    threads: int
    reason: str

    @property
    def workers(self) -> int:
        """Return the worker threads: one more than `threads`, which decodes while the others compute."""
        return self.threads + 1


def select(
    runtime: str, requested: str, threads: int, *, exports: Collection[str], supported: Mapping[str, str], cores: int
) -> Selection:
    """Return what to compute with; raise StartError when the requested precision is unavailable.

    `exports`: the artifact's; `supported`: precision -> what the hardware has for it; `threads` 0: `cores`.
    """
    needed = EXPORTS[runtime]
    if not set(needed.values()) & set(exports):
        names = " or ".join(sorted(set(needed.values())))
        raise StartError(
            f"RUNTIME={runtime} needs the export {names}, which this artifact lacks; train with runtime={runtime}."
        )
    obstacles = {precision: _obstacle(runtime, precision, exports, supported) for precision in PRECISIONS[1:]}
    if requested == "auto":
        precision = next((name for name in needed if not obstacles[name]), "")
        if not precision:
            reasons = "; ".join(str(obstacles[name]) for name in needed)
            raise StartError(f"RUNTIME={runtime} can compute none of its precisions: {reasons}.")
        faster = [obstacles[name] for name in list(needed)[: list(needed).index(precision)]]
        reason = "; ".join([f"{precision}: {supported[precision]}", *map(str, faster)])
    elif obstacles[requested]:
        raise StartError(f"PRECISION={requested} is unavailable: {obstacles[requested]}; set PRECISION=auto.")
    else:
        precision, reason = requested, f"PRECISION={requested}"
    used, bound = (threads, f"THREADS={threads}") if threads else (cores, f"{cores} usable cores")
    return Selection(runtime, precision, needed[precision], used, f"{reason}; {bound}")


def _obstacle(runtime: str, precision: str, exports: Collection[str], supported: Mapping[str, str]) -> str | None:
    """Return why `runtime` cannot compute in `precision`, or None."""
    export = EXPORTS[runtime].get(precision)
    if export is None:
        return f"{runtime} does not support {precision}"
    if export not in exports:
        return f"the artifact has no {precision} export"
    if precision not in supported:
        return f"this processor does not support {precision}"
    return None


# Instructions for each precision; without them it is slower than float32 (bfloat16: four times).
_INSTRUCTIONS = {
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni"),
    "bfloat16": ("amx_bf16", "avx512_bf16"),
}


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return the cores that this process may use: its affinity, or fewer under a cgroup quota."""
    bound = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text().split()
        return min(bound, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return bound


def supported_precisions(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """Return precision -> the processor's instructions for it, without those that it lacks; float32 is always there."""
    try:
        text = cpuinfo.read_text("utf-8", "replace")
    except OSError:
        text = ""
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    found = {
        precision: next((name for name in names if name in flags), None) for precision, names in _INSTRUCTIONS.items()
    }
    return {"float32": "any processor"} | {precision: name for precision, name in found.items() if name}
