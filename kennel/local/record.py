"""The folder of a run on this machine, and its run.json, by which it can be resumed and compared."""

import json
import re
import secrets
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kennel.errors import KennelError
from kennel.files import locked, replace_text

_FILE = "run.json"


@dataclass
class Record:
    """run.json. `status`: running, done, failed or interrupted; `seconds` by step, of those that are done."""

    run: str
    data: str
    weights: str
    hyperparameters: dict[str, str]
    duplicates: str
    instances: int
    started: str
    status: str = "running"
    reason: str = ""
    fingerprint: str = ""
    images: int = 0
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """`runs/<run>/`: ml/ while it runs, then evaluation/, report/, output/model.tar.gz; run.log, run.json."""

    path: Path
    record: Record

    def save(self) -> None:
        """Replace run.json as a whole: a run that is cut off leaves the one before."""
        replace_text(self.path / _FILE, json.dumps({"format": 1, **asdict(self.record)}, indent=1))

    @property
    def cache(self) -> Path:
        """Return the folder of what all runs on the same data share: features, and checkpoints by their settings."""
        return self.path.parent / "cache" / self.record.fingerprint

    def locked(self) -> AbstractContextManager[None]:
        """Return a lock of the run for a with block, which raises KennelError while another process has it."""
        return locked(self.path, f"Run {self.record.run} is going on in another process.")


def new_run(
    runs: Path, *, data: Path, weights: Path | None, hyperparameters: Mapping[str, str], duplicates: str, instances: int
) -> RunFolder:
    """Make the folder of a new run; raise KennelError where that cannot be."""
    now = datetime.now(UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    record = Record(
        run=name,
        data=str(data.resolve()),
        weights=str(weights.resolve()) if weights else "",
        hyperparameters=dict(hyperparameters),
        duplicates=duplicates,
        instances=instances,
        started=now.isoformat(timespec="seconds"),
    )
    folder = RunFolder(runs.resolve() / name, record)
    try:
        folder.path.mkdir(parents=True)
        folder.save()
    except OSError as error:
        raise KennelError(f"--runs {runs}: {folder.path} cannot be made ({error.strerror}).") from error
    return folder


def read_run(runs: Path, name: str) -> RunFolder:
    """Return the folder of an earlier run; raise KennelError where there is none or its run.json is broken."""
    path = runs.resolve() / name
    if not re.fullmatch(r"[\w.-]+", name) or not (path / _FILE).is_file():
        known = ", ".join(sorted(file.parent.name for file in runs.glob(f"*/{_FILE}"))[-3:]) or "none"
        raise KennelError(f"There is no run {name!r} in {runs}; the newest there: {known}.")
    try:
        content: dict[str, Any] = json.loads((path / _FILE).read_text(encoding="utf-8"))
        content.pop("format")
        return RunFolder(path, Record(**content))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KennelError(f"{path / _FILE} cannot be read ({error}).") from error
