"""What this machine computes with."""

import math
import os
from pathlib import Path

# The instructions that multiply a kind of numbers; without them it is slower than float32 (bfloat16: four times).
_MULTIPLIERS = {
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni"),
    "bfloat16": ("amx_bf16", "avx512_bf16"),
}


def cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """How many this process may use: those it is bound to, or fewer where its container is given a part of the time."""
    bound = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text().split()
        return min(bound, math.ceil(int(allowed) / int(period)))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return bound


def multiplies(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """From each precision to the processor's instructions for it; those that it lacks are absent, float32 is there."""
    try:
        text = cpuinfo.read_text("utf-8", "replace")
    except OSError:
        text = ""
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    found = {
        precision: next((name for name in names if name in flags), None) for precision, names in _MULTIPLIERS.items()
    }
    return {"float32": "any processor"} | {precision: name for precision, name in found.items() if name}
