"""Writes the provenance record of a model, passport.json: what the model was made of and the hash of each of its files.

The record's own hash is in the model package's metadata, so that a later change of any file is noticed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAME = "passport.json"
_PROGRAM = Path(__file__).resolve().parent
# What the program runs, not what builds its container: the image does not contain its Dockerfile, and the hash must be
# the same in the image and in a checkout.
_SUFFIXES = (".py", ".json", ".j2", ".css")
_NAMES = ("requirements.txt",)


def code_sha256(program: Path = _PROGRAM) -> str:
    """Return the SHA-256 over the sorted (path, SHA-256) pairs of the training program's files."""
    digest = hashlib.sha256()
    for file in sorted(program.rglob("*"), key=lambda file: file.relative_to(program).as_posix()):
        if (file.suffix in _SUFFIXES or file.name in _NAMES) and file.is_file() and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(program).as_posix()}\0{file_sha256(file)}\n".encode())
    return digest.hexdigest()


def file_sha256(file: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_passport(folder: Path, record: Mapping[str, Any], *, image: str) -> None:
    """Write passport.json into `folder`, beside the finished files of a model.

    `record` is model.json's content, `image` the URI of the training image (may be empty).
    """
    files = sorted(file for file in folder.iterdir() if file.is_file() and NAME not in file.name)
    provenance = {
        "format": 1,
        "data": record["data"],
        "code": {"sha256": code_sha256()},
        "image": image,
        "hyperparameters": record["hyperparameters"],
        "metrics": record["metrics"],
        "files": {file.name: file_sha256(file) for file in files},
    }
    fresh = folder / f".{NAME}.new"
    fresh.write_text(json.dumps(provenance, indent=1), encoding="utf-8")
    fresh.replace(folder / NAME)
