"""Checkpoints that survive being interrupted: written aside, checksummed, renamed; the newest whole one is taken."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

KEPT = 2  # the newest, and one before it in case the newest was damaged on its way
_MAGIC = b"KENNEL1\n"
_DIGEST = 32


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint of global step `step` and remove all but the newest two.

    The bytes are on the disk before the name is: whoever lists the folder (SageMaker copies it to S3 at any time)
    sees whole files only, apart from `.partial` ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    final = folder / f"step-{step:09}.ckpt"
    partial = final.with_suffix(".partial")
    try:
        with partial.open("wb") as stream:
            stream.write(_MAGIC + hashlib.sha256(data).digest())
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        partial.unlink(missing_ok=True)  # on a full disk the reason of the failure wants its room
        raise
    partial.replace(final)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return final


def newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the newest whole checkpoint, if any, and the names of damaged ones that were passed over."""
    damaged: list[str] = []
    for file in _newest_first(folder):
        state = _load(file)
        if state is not None:
            return state, damaged
        damaged.append(file.name)
    return None, damaged


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True) if folder.is_dir() else []


def _load(file: Path) -> dict[str, Any] | None:
    content = file.read_bytes()
    data = content[len(_MAGIC) + _DIGEST :]
    if not content.startswith(_MAGIC) or hashlib.sha256(data).digest() != content[len(_MAGIC) :][:_DIGEST]:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return state
