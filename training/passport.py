"""The passport of a model: what it was made of and the hash of each of its files, written last.

Its own hash stands in the model package's metadata, so a file that is changed later shows.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "passport.json"
_PROGRAM = Path(__file__).resolve().parent
# What the program runs, and not what it is built with: the image holds no Dockerfile of itself, and each launcher
# shall find the same hash. The image is named in the passport beside it.
_CODE = (".py", ".json", ".j2", ".css")
_LISTS = ("requirements.txt",)


def code_sha256(program: Path = _PROGRAM) -> str:
    """Return the SHA-256 over the sorted (path, SHA-256) pairs of the training program's files."""
    whole = hashlib.sha256()
    for file in sorted(program.rglob("*"), key=lambda file: file.relative_to(program).as_posix()):
        if (file.suffix in _CODE or file.name in _LISTS) and file.is_file() and "__pycache__" not in file.parts:
            whole.update(f"{file.relative_to(program).as_posix()}\0{file_sha256(file)}\n".encode())
    return whole.hexdigest()


def file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_passport(folder: Path, record: Mapping[str, Any], *, image: str) -> None:
    """Write passport.json for the model in `folder`, whose model.json holds `record`; `image` may be empty."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and NAME not in file.name)
    passport = {
        "format": 1,
        "data": record["data"],
        "code": {"sha256": code_sha256()},
        "image": image,
        "hyperparameters": record["hyperparameters"],
        "metrics": record["metrics"],
        "files": {file.name: file_sha256(file) for file in files},
    }
    fresh = folder / f".{NAME}.new"
    fresh.write_text(json.dumps(passport, indent=1), encoding="utf-8")
    fresh.replace(folder / NAME)
