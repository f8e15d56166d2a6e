"""Checkpoints and features on disk that survive any interruption: written aside, checksummed, then renamed."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.errors import TrainingError

CHECKPOINT_SECONDS = 300.0  # spot instances may vanish without the signal; an epoch can be longer than that
_KEEP = 2  # the newest, and one before it in case the newest was damaged on its way
_MAGIC, _FEATURES_MAGIC = b"KENNEL1\n", b"KENNELF1"
_DIGEST = 32  # bytes of a SHA-256

Rows = NDArray[np.float32]  # [images, width]


def checkpoint_interval(default: float = CHECKPOINT_SECONDS) -> float:
    """Return the seconds of work that a kill may cost: the environment's CHECKPOINT_SECONDS, else `default`."""
    text = os.environ.get("CHECKPOINT_SECONDS", "")
    try:
        return float(text) if text else default
    except ValueError:
        raise TrainingError(f"CHECKPOINT_SECONDS must be a number of seconds, not {text!r}.") from None


def run_folder(checkpoints: Path, identity: Any) -> Path:
    """Return the folder of the one run that `identity` (JSON) describes; several runs share `checkpoints`."""
    text = json.dumps(identity, sort_keys=True)
    return checkpoints / hashlib.sha256(text.encode()).hexdigest()[:16]


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the checkpoint of global step `step` and remove all but the newest two.

    The bytes are on the disk before the name is: whoever lists the folder (SageMaker copies it to S3 at any time)
    sees whole files only, apart from `.partial` ones. Raise TrainingError when the disk refuses; the older checkpoints
    are still there then.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    file = folder / f"step-{step:09}.ckpt"
    with disk_errors(f"The checkpoint {file}"):
        folder.mkdir(parents=True, exist_ok=True)
        for abandoned in folder.glob("step-*.partial"):  # by a run that was killed while it wrote
            _remove(abandoned)
        write_checksummed(file, _MAGIC, buffer.getbuffer(), partial=file.with_suffix(".partial"))
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name, too, must survive the host
        finally:
            os.close(descriptor)
    for old in [other for other in _newest_first(folder) if other.name < file.name][_KEEP - 1 :]:
        _remove(old)
    return file


def load_newest(folder: Path) -> dict[str, Any] | None:
    """Return the newest undamaged checkpoint, if any; name damaged ones in the log and remove them.

    Otherwise they would count among the two that stay.
    """
    for file in _newest_first(folder):
        state = _load(file)
        if state is not None:
            return state
        print(f"checkpoint {file.name} is damaged and passed over", flush=True)
        _remove(file)
    return None


def write_checksummed(file: Path, magic: bytes, data: bytes | memoryview, *, partial: Path) -> None:
    """Write magic, SHA-256 and `data`, atomically: to `partial` beside it, synced, then renamed."""
    try:
        with partial.open("wb") as stream:
            stream.write(magic + hashlib.sha256(data).digest())
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(file)
    except OSError:
        _remove(partial)  # on a full disk, so that the reason of the failure can be written
        raise


def read_checksummed(file: Path, magic: bytes) -> memoryview | None:
    """Return the data that `write_checksummed` wrote, or None for a file that is damaged, foreign or unreadable."""
    try:
        content = memoryview(file.read_bytes())
    except OSError:
        return None
    head, data = content[: len(magic) + _DIGEST], content[len(magic) + _DIGEST :]
    return data if head == magic + hashlib.sha256(data).digest() else None


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn an OSError into a TrainingError that names what cannot be written, and why."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainingError(f"{what} cannot be written: {reason}; free space or grant write permission.") from error


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*.ckpt"), reverse=True) if folder.is_dir() else []


def _remove(file: Path) -> None:
    with contextlib.suppress(OSError):
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink()


def _load(file: Path) -> dict[str, Any] | None:
    data = read_checksummed(file, _MAGIC)
    if data is None:
        return None
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    # The unpickler raises anything on foreign bytes; weights_only keeps it from running them.
    except Exception:
        return None
    return state if isinstance(state, dict) else None


class FeatureStore:
    """The features of one backbone, transform and view, in a folder that is named by the hash of all of these (`key`).

    A chunk holds the SHA-256 of some images and their features. Each different key leaves one folder; the folder above
    is stored with the data set and deleted with it.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], width: int, rank: int) -> None:
        self.name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self._folder, self._width, self._rank = folder / self.name, width, rank

    @property
    def rejected(self) -> bool:
        """Whether the precision in this key was found too coarse."""
        return (self._folder / "rejected").is_file()

    def reject(self) -> None:
        """Remember for later runs that the precision in this key is too coarse."""
        with disk_errors(f"Features in {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "rejected").touch()

    def load(self, places: Mapping[bytes, Sequence[int]], rows: Rows) -> set[bytes]:
        """Fill `rows` at `places` (by the images' SHA-256) and return the SHA-256 of the images that were found.

        A damaged chunk is named in the log, removed and passed over.
        """
        found: set[bytes] = set()
        for file in sorted(self._folder.glob("*.features")):
            chunk = self._read(file)
            if chunk is None:
                print(f"features {file.name} of {self.name} are damaged and computed again", flush=True)
                with contextlib.suppress(OSError):
                    file.unlink()
                continue
            for digest, features in zip(*chunk, strict=True):
                for place in places.get(digest, ()):
                    rows[place] = features
                    found.add(digest)
        return found

    def save(self, digests: Sequence[bytes], rows: Rows) -> None:
        """Write one chunk; whoever lists the folder sees it whole or, but for `.partial`, not at all.

        Raise TrainingError when the disk refuses.
        """
        content = struct.pack("<II", *rows.shape) + b"".join(digests) + rows.tobytes()
        file = self._folder / f"{hashlib.sha256(content).hexdigest()[:16]}.features"
        partial = self._folder / f"rank-{self._rank}.partial"  # one per rank: the next write replaces an abandoned one
        with disk_errors(f"Features in {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_checksummed(file, _FEATURES_MAGIC, content, partial=partial)

    def _read(self, file: Path) -> tuple[list[bytes], Rows] | None:
        """Return digests and features of a chunk, or None for a file that is damaged or of another width."""
        content = read_checksummed(file, _FEATURES_MAGIC)
        if content is None:
            return None
        count, width = struct.unpack_from("<II", content)
        if width != self._width:
            return None
        start = 8 + count * _DIGEST
        digests = [bytes(content[place : place + _DIGEST]) for place in range(8, start, _DIGEST)]
        return digests, np.frombuffer(content[start:], np.float32).reshape(count, width)
