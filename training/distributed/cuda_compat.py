"""Lets the image's CUDA run on a host whose driver is older: what the base image's own entry point would have done."""

import re
from collections.abc import Mapping
from pathlib import Path

COMPAT = Path("/usr/local/cuda/compat")
DRIVER = Path("/proc/driver/nvidia/version")


def environment(variables: Mapping[str, str], *, compat: Path = COMPAT, driver: Path = DRIVER) -> dict[str, str]:
    """Return LD_LIBRARY_PATH with CUDA's compatibility libraries first if they are newer than the host's driver."""
    library = compat / "libcuda.so.1"
    if not library.exists() or not driver.is_file():
        return {}
    host, ours = _version(driver.read_text(encoding="utf-8")), _version(library.resolve().name)
    if not host or host >= ours:
        return {}
    return {"LD_LIBRARY_PATH": ":".join(filter(None, [str(compat), variables.get("LD_LIBRARY_PATH")]))}


def _version(text: str) -> tuple[int, ...]:
    """Return the first dotted number with a major version of three digits, as drivers have: 580.95.05."""
    found = re.search(r"\b(\d{3}(?:\.\d+)+)\b", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else ()
