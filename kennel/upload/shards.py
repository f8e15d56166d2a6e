"""Packs images into tar files that are the same bytes whenever, wherever and by whomever they are packed."""

import hashlib
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from kennel.errors import KennelError
from kennel.upload.folder import Image, readable

LIMIT = 64 * 2**20  # bytes
_BLOCK = 512
_END = tarfile.RECORDSIZE  # the end mark, padded


@dataclass(frozen=True)
class Shard:
    name: str
    images: tuple[Image, ...]

    @property
    def content(self) -> str:
        """SHA-256 over what goes in, known before it is packed: whether a shard is up already needs no second look."""
        return digest(self.images)

    @property
    def size(self) -> int:
        """Sum of the images' own bytes."""
        return sum(image.size for image in self.images)


def digest(images: Sequence[Image]) -> str:
    """Return the SHA-256 over the sorted (name, SHA-256) pairs, in hex."""
    total = hashlib.sha256()
    for image in sorted(images, key=lambda image: image.name):
        total.update(f"{image.name}\0{image.sha256}\n".encode())
    return total.hexdigest()


def plan(images: Sequence[Image], limit: int = LIMIT) -> list[Shard]:
    """Divide `images`, in their order, into shards of at most `limit` bytes; a larger image has a shard to itself."""
    groups: list[list[Image]] = []
    room = 0
    for image in images:
        if not groups or _packed(image) > room:
            groups.append([])
            room = limit - _END
        groups[-1].append(image)
        room -= _packed(image)
    return [Shard(f"images-{number:05d}.tar", tuple(group)) for number, group in enumerate(groups)]


def pack(shard: Shard, stream: IO[bytes]) -> None:
    """Write the shard's tar to `stream`; raises KennelError if an image changed since it was looked at."""
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for image in shard.images:
            member = tarfile.TarInfo(image.name)  # time 0, owner 0
            member.size, member.mode = image.size, 0o644
            with readable(image.name):
                file = image.path.open("rb")
            with file:
                about = image.path.stat()
                if (about.st_size, about.st_mtime_ns) != (image.size, image.modified):
                    raise KennelError(f"{image.name} changed while it was uploaded; run the upload again.")
                archive.addfile(member, file)


def _packed(image: Image) -> int:
    """Bytes in the tar, at most: header, content in whole blocks, and for some names a PAX header before them."""
    name = len(image.name.encode())
    extended = 0 if image.name.isascii() and name <= 100 else 2 * _BLOCK + _whole(name + 32)
    return _BLOCK + _whole(image.size) + extended


def _whole(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
