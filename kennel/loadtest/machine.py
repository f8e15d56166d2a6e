"""This machine in one line."""

import os
import platform
from pathlib import Path

_TELLING = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")  # arithmetic that decides speed


def describe() -> str:
    """Cores that this process may use, processor with its vector units, memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores of {_processor()}, {memory:.0f} GiB"


def _processor(file: Path = Path("/proc/cpuinfo")) -> str:
    entries: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        name, _, value = line.partition(":")
        entries.setdefault(name.strip(), value.strip())
    units = [unit for unit in _TELLING if unit in entries.get("flags", "").split()]
    return entries.get("model name", platform.machine()) + (f" ({', '.join(units)})" if units else "")
