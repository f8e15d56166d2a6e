"""Where SageMaker puts things: the one place that knows /opt/ml."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import TrainingError


@dataclass(frozen=True)
class Paths:
    """The folders of the container contract below one root, `/opt/ml` unless the variable OPT_ML names another."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Paths":
        return cls(Path(os.environ.get("OPT_ML") or "/opt/ml"))

    @property
    def config(self) -> Path:
        return self.root / "input" / "config"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def output(self) -> Path:
        return self.root / "output"

    def channel(self, name: str) -> Path:
        return self.root / "input" / "data" / name

    def processing_input(self, name: str) -> Path:
        return self.root / "processing" / "input" / name

    def processing_output(self, name: str) -> Path:
        return self.root / "processing" / "output" / name

    def read_config(self, name: str) -> dict[str, Any]:
        """Return one of SageMaker's configuration files (`resourceconfig`), or nothing where a launcher wrote none."""
        file = self.config / f"{name}.json"
        if not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TrainingError(f"{file} is no JSON: {error}.") from None
        if not isinstance(content, dict):
            raise TrainingError(f"{file} must hold a JSON object.")
        return content

    def write_reason(self, file: str, reason: str) -> None:
        """Print why the job failed, and write it to `output/<file>`, which SageMaker shows."""
        print(reason, file=sys.stderr, flush=True)
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / file).write_text(reason + "\n", encoding="utf-8")
        except OSError as error:
            print(f"The reason could not be written to {self.output}: {error}", file=sys.stderr, flush=True)

    def require_writable(self) -> None:
        """Raise TrainingError at the start of a run if it could not write its results at the end."""
        for folder in (self.model, self.checkpoints):
            writable(folder)


def writable(folder: Path) -> Path:
    """Return `folder`, made if it is missing; raise TrainingError if it cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise TrainingError(f"The folder {folder} cannot be written; mount it for writing.")
    return folder
