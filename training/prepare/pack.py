"""Writes a split as tar shards and an index."""

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from training.prepare.verify import Verified
from training.split import Sample, Split

SHARD_BYTES = 64 * 2**20  # few enough objects for S3, small enough to fetch side by side


def pack(folder: Path, split: str, images: Sequence[Verified], classes: Sequence[str], fingerprint: str) -> Split:
    """Write `images` to `folder` in the order of class and name; the encoded bytes are copied as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)  # an older one would point into the middle of new shards
    ordered = sorted(images, key=lambda image: (image.found.label, image.found.name))
    labels = {name: label for label, name in enumerate(classes)}
    samples: list[Sample] = []
    for number, shard in enumerate(_shards(ordered)):
        samples += _write_shard(folder / f"shard-{number:05}.tar", shard, labels)
    packed = Split(folder, split, tuple(classes), tuple(samples), fingerprint)
    packed.write_index()
    return packed


def _shards(images: Sequence[Verified]) -> Iterator[list[Verified]]:
    shard: list[Verified] = []
    size = 0
    for image in images:
        if shard and size + image.found.source.size > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(image)
        size += image.found.source.size
    if shard:
        yield shard


def _write_shard(path: Path, images: Sequence[Verified], labels: dict[str, int]) -> Iterator[Sample]:
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for image in images:
            data = image.found.source.read()
            member = tarfile.TarInfo(image.found.name)
            member.size = len(data)  # times, owner and mode keep their defaults: the same data gives the same bytes
            archive.addfile(member, io.BytesIO(data))
            start = archive.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            label = labels[image.found.label]
            yield Sample(path.name, start, len(data), label, image.found.name, image.sha256)
