"""The capacity file (docs/contracts/capacity.md): the newest measurement of each instance type."""

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
    each = [_per_instance(load, subject.instances) for load in loads]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **{name: value for name, value in vars(subject).items() if name not in ("url", "endpoint")},
        "target_p99_ms": p99_ms,
        "photos": photos,
        **{name: each[-1][name] for name in ("requests_per_second", "concurrency", "concurrency_peak")},
        "loads": each,
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
    rates = {
        "requests_per_second": load.rate,
        "concurrency": load.concurrency,
        "concurrency_peak": load.concurrency_peak,
    }
    figures = ("requests", "p50_ms", "p95_ms", "p99_ms", "late_ms")
    return {name: round(value / instances, 2) for name, value in rates.items()} | {
        name: round(getattr(load, name), 1) for name in figures
    }
