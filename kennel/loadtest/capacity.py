"""The capacity file (docs/contracts/capacity.md): the newest measurement of each instance type."""

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kennel.errors import KennelError
from kennel.files import replace_text
from kennel.loadtest.load import Load
from kennel.loadtest.subject import Subject


def entry(subject: Subject, loads: Sequence[Load], p99_ms: float, photos: int) -> dict[str, Any]:
    """Return one measurement as the file has it, rates and concurrency of one instance; `loads` are those that held."""
    best = _per_instance(loads[-1], subject.instances)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "instance_type": subject.instance_type,
        "machine": subject.machine,
        "instances": subject.instances,
        "model": subject.model,
        "runtime": subject.runtime,
        "precision": subject.precision,
        "target_p99_ms": p99_ms,
        "photos": photos,
        "requests_per_second": best["requests_per_second"],
        "concurrency": best["concurrency"],
        "concurrency_peak": best["concurrency_peak"],
        "loads": [_per_instance(load, subject.instances) for load in loads],
    }


def check_writable(file: Path) -> None:
    """Raise KennelError now for a file that could not be written after minutes of measuring."""
    _read(file)
    if not file.parent.is_dir():
        raise KennelError(f"--out {file}: the folder {file.parent} does not exist.")


def write(file: Path, measured: dict[str, Any]) -> None:
    """Write the measurement in place of the one of the same instance type; the others stay."""
    measurements = _read(file)
    measurements[measured["instance_type"]] = measured
    text = json.dumps({"format": 1, "measured": dict(sorted(measurements.items()))}, indent=2)
    try:
        replace_text(file, text + "\n")
    except OSError as error:
        raise KennelError(f"--out {file} cannot be written ({error.strerror}).") from error


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["measured"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KennelError(
            f"--out {file} exists and is no file of `kennel loadtest` ({error}); name another."
        ) from error


def _per_instance(load: Load, instances: int) -> dict[str, Any]:
    figures = dataclasses.asdict(load)
    shares = {name: round(figures.pop(name) / instances, 2) for name in ("rate", "concurrency", "concurrency_peak")}
    kept = ("requests", "p50_ms", "p95_ms", "p99_ms", "late_ms")
    return {
        "requests_per_second": shares.pop("rate"),
        **shares,
        **{name: round(figures[name], 1) for name in kept},
    }
