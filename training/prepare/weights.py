"""Passes pretrained weights on to training, after checking their hash, and chooses the training mode."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.prepare.dataset import printable


def read_dataset_record(folder: Path) -> dict[str, Any]:
    """Return the uploaded dataset.json, or an empty dictionary for a folder without one."""
    file = folder / "dataset.json"
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"dataset.json is broken ({error}); upload the data set again.") from None
    if not isinstance(record, dict):
        raise TrainingError("dataset.json must be a JSON object; upload the data set again.")
    return record


def pass_on(folder: Path, output: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Copy the weights that dataset.json names (if none: the one file in weights/) and return weights.json's content.

    weights.json is always written: SageMaker refuses an empty channel. Raise TrainingError for weights that are
    missing, empty, ambiguous or not the named ones.
    """
    named = record.get("weights")
    name = _named(named) if named else _only_file(folder / "weights")
    content: dict[str, Any] = {"file": None}
    if name:
        content = {"file": name, "sha256": _sha256(folder / "weights" / name)}
        if named and content["sha256"] != named.get("sha256"):
            raise TrainingError(
                f"weights/{name} has SHA-256 {content['sha256']}, but dataset.json says {named.get('sha256')}."
            )
        shutil.copyfile(folder / "weights" / name, output / name)
    (output / "weights.json").write_text(json.dumps(content), encoding="utf-8")
    return content


def choose_mode(mode: str, weights: dict[str, Any]) -> str:
    """Return the training mode, "head" or "whole"; raise TrainingError for head without weights."""
    if mode == "head" and not weights["file"]:
        raise TrainingError(
            "Mode head needs pretrained weights and the data set has none: upload it with --weights, or train in mode "
            "whole."
        )
    if mode != "auto":
        return mode
    return "head" if weights["file"] else "whole"


def _named(named: Any) -> str:
    name = named.get("file") if isinstance(named, dict) else None
    if not isinstance(name, str) or not name or Path(name).name != name or name == "weights.json":
        raise TrainingError(f"dataset.json names weights as {named!r}; expected the file's name and its sha256.")
    return name


def _only_file(folder: Path) -> str | None:
    files = sorted(file for file in folder.glob("*") if file.suffix in (".pth", ".pt"))
    if len(files) > 1:
        names = ", ".join(printable(file.name) for file in files[:5])
        raise TrainingError(f"The folder weights has {len(files)} files ({names}); leave only the one to start from.")
    return files[0].name if files else None


def _sha256(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        raise TrainingError(f"The weights file weights/{path.name} is missing; upload the data set with it again.")
    if path.stat().st_size == 0:
        raise TrainingError(f"The weights file weights/{path.name} is empty; upload the data set with a complete one.")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
