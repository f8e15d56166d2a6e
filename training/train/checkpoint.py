"""Checkpoints that survive being interrupted: written aside, checksummed, renamed; the newest whole one is taken."""

import contextlib
import hashlib
import io
import os
import shutil
from pathlib import Path
from typing import Any

import torch

from training.errors import TrainingError

KEPT = 2  # the newest, and one before it in case the newest was damaged on its way
_MAGIC = b"KENNEL1\n"
_DIGEST = 32


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint of global step `step` and remove all but the newest two.

    The bytes are on the disk before the name is: whoever lists the folder (SageMaker copies it to S3 at any time)
    sees whole files only, apart from `.partial` ones. Raises TrainingError when the disk refuses; the checkpoints that
    were there before are there still.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getbuffer()
    final = folder / f"step-{step:09}.ckpt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(final, _MAGIC + hashlib.sha256(data).digest(), data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainingError(f"The checkpoint {final} cannot be written: {reason}; give it room and leave.") from error
    for old in [file for file in _newest_first(folder) if file.name < final.name][KEPT - 1 :]:
        _remove(old)
    return final


def newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the newest whole checkpoint, if any, and the names of damaged ones that were passed over.

    The damaged ones are removed, or they would count among the two that are kept.
    """
    damaged: list[str] = []
    for file in _newest_first(folder):
        state = _load(file)
        if state is not None:
            return state, damaged
        damaged.append(file.name)
        _remove(file)
    return None, damaged


def _write(final: Path, head: bytes, data: memoryview) -> None:
    for left in final.parent.glob("step-*.partial"):  # by a run that was killed while it wrote
        _remove(left)
    partial = final.with_suffix(".partial")
    try:
        with partial.open("wb") as stream:
            stream.write(head)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(final)
    except OSError:
        _remove(partial)  # on a full disk the reason of the failure wants its room
        raise
    descriptor = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the name, too, shall outlive the host
    finally:
        os.close(descriptor)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True) if folder.is_dir() else []


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink()


def _load(file: Path) -> dict[str, Any] | None:
    """Return what `save` was given, or None for anything else than a whole checkpoint."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    data = memoryview(content)[len(_MAGIC) + _DIGEST :]
    if not content.startswith(_MAGIC) or hashlib.sha256(data).digest() != content[len(_MAGIC) :][:_DIGEST]:
        return None
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # Foreign bytes raise whatever they lead the unpickler into; weights_only keeps it from running them.
    except Exception:
        return None
    return state if isinstance(state, dict) else None
