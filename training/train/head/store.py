"""Features on disk, found by the content of their images, in checksummed chunks: nothing is computed twice."""

import contextlib
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.train.checkpoint import disk_errors, read_checksummed, write_checksummed

Rows = NDArray[np.float32]  # [images, width]

_MAGIC = b"KENNELF1"
_DIGEST = 32


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
        return (self._folder / "refused").is_file()

    def reject(self) -> None:
        """Remember for later runs that the precision in this key is too coarse."""
        with disk_errors(f"Features in {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "refused").touch()

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
            write_checksummed(file, _MAGIC, content, partial=partial)

    def _read(self, file: Path) -> tuple[list[bytes], Rows] | None:
        """Return digests and features of a chunk, or None for a file that is damaged or of another width."""
        content = read_checksummed(file, _MAGIC)
        if content is None:
            return None
        count, width = struct.unpack_from("<II", content)
        if width != self._width:
            return None
        start = 8 + count * _DIGEST
        digests = [bytes(content[place : place + _DIGEST]) for place in range(8, start, _DIGEST)]
        return digests, np.frombuffer(content[start:], np.float32).reshape(count, width)
