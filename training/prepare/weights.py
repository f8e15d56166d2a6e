"""Passes pretrained weights on, after a look at their hash."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from training.errors import TrainingError


def read_dataset_record(folder: Path) -> dict[str, Any]:
    """Return the uploaded dataset.json, or nothing where a plain folder was given."""
    file = folder / "dataset.json"
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"dataset.json is broken ({error}); upload the data set again.") from None
    if not isinstance(record, dict):
        raise TrainingError("dataset.json must hold a JSON object; upload the data set again.")
    return record


def pass_on(folder: Path, output: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Copy the weights that dataset.json names; always write weights.json, so that the channel is never empty."""
    output.mkdir(parents=True, exist_ok=True)
    named = record.get("weights")
    said: dict[str, Any] = {"file": None}
    if named:
        said = _checked(folder, named)
        shutil.copyfile(folder / "weights" / said["file"], output / said["file"])
    (output / "weights.json").write_text(json.dumps(said), encoding="utf-8")
    return said


def _checked(folder: Path, named: Any) -> dict[str, Any]:
    name = named.get("file") if isinstance(named, dict) else None
    if not isinstance(name, str) or Path(name).name != name or name == "weights.json":
        raise TrainingError(f"dataset.json names weights as {named!r}; expected the file's name and its sha256.")
    path = folder / "weights" / name
    if path.is_symlink() or not path.is_file():
        raise TrainingError(f"The weights file weights/{name} is missing; upload the data set with its weights again.")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != named.get("sha256"):
        raise TrainingError(f"weights/{name} has SHA-256 {found}, but dataset.json says {named.get('sha256')}.")
    return {"file": name, "sha256": found}
