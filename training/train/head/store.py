"""Features on disk: by content, in checksummed chunks, so that nothing is computed twice and nothing torn is used."""

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import TrainingError

Rows = NDArray[np.float32]  # [images, width]

_MAGIC = b"KENNELF1"
_DIGEST = 32


class Store:
    """The features that one backbone, transform and view gives: a folder named by all of these.

    A chunk holds the images' SHA-256 and their features. What grows is one folder for each different key; the folder
    above is kept with the data and dropped with it.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any], width: int, worker: int) -> None:
        self.name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self._folder, self._width, self._worker = folder / self.name, width, worker

    @property
    def refused(self) -> bool:
        """Whether this key's arithmetic was found too coarse."""
        return (self._folder / "refused").is_file()

    def refuse(self) -> None:
        with _disk(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "refused").touch()

    def load(self, wanted: Mapping[bytes, Sequence[int]], rows: Rows) -> set[bytes]:
        """Fill `rows` where `wanted` (image's SHA-256: its places) says and return whose features were found.

        A damaged chunk is said, removed and passed over.
        """
        found: set[bytes] = set()
        for file in sorted(self._folder.glob("*.features")):
            chunk = _read(file, self._width)
            if chunk is None:
                print(f"features {file.name} of {self.name} are damaged and computed again", flush=True)
                with contextlib.suppress(OSError):
                    file.unlink()
                continue
            for digest, features in zip(*chunk, strict=True):
                for place in wanted.get(digest, ()):
                    rows[place] = features
                    found.add(digest)
        return found

    def save(self, digests: Sequence[bytes], rows: Rows) -> None:
        """Write one chunk; whoever lists the folder sees it whole or, but for `.partial`, not at all.

        Raises TrainingError when the disk refuses.
        """
        content = struct.pack("<II", *rows.shape) + b"".join(digests) + rows.tobytes()
        checksum = hashlib.sha256(content)
        partial = self._folder / f"worker-{self._worker}.partial"  # one a worker: what a killed one left is overwritten
        with _disk(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                with partial.open("wb") as stream:
                    stream.write(_MAGIC + checksum.digest() + content)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(self._folder / f"{checksum.hexdigest()[:16]}.features")
            except OSError:
                partial.unlink(missing_ok=True)  # on a full disk the reason of the failure wants its room
                raise


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise TrainingError(f"Features cannot be written to {folder}: {reason}; give it room and leave.") from error


def _read(file: Path, width: int) -> tuple[list[bytes], Rows] | None:
    """Return digests and features of a chunk, or None for anything else than a whole one."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    content = memoryview(data)[len(_MAGIC) + _DIGEST :]
    if not data.startswith(_MAGIC) or hashlib.sha256(content).digest() != data[len(_MAGIC) :][:_DIGEST]:
        return None
    count, stored = struct.unpack_from("<II", content)
    if stored != width:
        return None
    start = 8 + count * _DIGEST
    digests = [bytes(content[place : place + _DIGEST]) for place in range(8, start, _DIGEST)]
    return digests, np.frombuffer(content[start:], np.float32).reshape(count, width)
