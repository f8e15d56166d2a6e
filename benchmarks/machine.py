"""What a figure was measured on, in one line."""

import os
import platform
from datetime import date
from pathlib import Path

_TELLING = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")  # arithmetic that decides speed


def describe() -> str:
    """Return date, cores, processor with its vector units, memory, system and Python."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{date.today().isoformat()}, {len(os.sched_getaffinity(0))} cores of {_processor()}, {gib:.0f} GiB, "
        f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    )


def _processor() -> str:
    entries: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        entries.setdefault(name.strip(), value.strip())
    units = [unit for unit in _TELLING if unit in entries.get("flags", "").split()]
    return f"{entries.get('model name', platform.machine())} ({', '.join(units)})"
