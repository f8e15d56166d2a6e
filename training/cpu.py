"""What this machine's processor offers: cores, and instructions for bfloat16 and int8. Does not load torch."""

import os
from pathlib import Path


def cores() -> int:
    """Return how many cores this process may keep busy; OMP_NUM_THREADS limits them where workers share a host."""
    allowed = len(os.sched_getaffinity(0))
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(limit)) if limit.isdecimal() and int(limit) else allowed


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of the first core under Linux's names; empty where /proc/cpuinfo has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def supports_bfloat16() -> bool:
    """Return whether bfloat16 has instructions of its own; emulated it is four times slower than float32."""
    return bool({"amx_bf16", "avx512_bf16"} & cpu_flags())


def prefers_int8() -> bool:
    """Return whether int8 is this processor's fastest precision: VNNI is faster than AVX-512's bfloat16, not AMX's."""
    flags = cpu_flags()
    return "amx_bf16" not in flags and bool({"avx512_vnni", "avx_vnni"} & flags)
