"""A prepared split: uncompressed tar shards and index.json, which says where in them each image is.

Prepare writes splits, training and Evaluate read them; docs/contracts/prepared-data.md has the format.
"""

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training.errors import TrainingError

FORMAT = 1
SHARD_BYTES = 64 * 2**20  # few enough objects for S3, small enough to be fetched side by side


@dataclass(frozen=True)
class Sample:
    """One image of the index; `offset` and `size` are those of its data in the shard, in bytes."""

    shard: str
    offset: int
    size: int
    label: int
    name: str
    sha256: str


@dataclass(frozen=True)
class NewSample:
    """An image that is still to be written into a shard; `read` returns its `size` encoded bytes."""

    label: str
    name: str
    sha256: str
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Split:
    """The images of one split. It can be pickled: each process opens the shards for itself."""

    folder: Path
    split: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> bytes:
        """Return the encoded image; raise TrainingError if the shard is shorter than the index says."""
        sample = self.samples[index]
        data = os.pread(self._descriptor(sample.shard), sample.size, sample.offset)
        if len(data) != sample.size:
            raise TrainingError(f"{self.folder / sample.shard} is cut short at {sample.name}; run Prepare again.")
        return data

    def write_index(self) -> None:
        content = {
            "format": FORMAT,
            "split": self.split,
            "fingerprint": self.fingerprint,
            "classes": self.classes,
            "samples": [vars(sample) for sample in self.samples],
        }
        (self.folder / "index.json").write_text(json.dumps(content), encoding="utf-8")

    @cached_property
    def _descriptors(self) -> dict[str, int]:
        return {}

    def _descriptor(self, shard: str) -> int:
        if shard not in self._descriptors:
            self._descriptors[shard] = os.open(self.folder / shard, os.O_RDONLY)
        return self._descriptors[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_descriptors"}


def load_split(folder: Path) -> Split:
    """Return the split that Prepare wrote into `folder`.

    Raise TrainingError if it is missing, broken, empty or of another format.
    """
    file = folder / "index.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise TrainingError(f"{file} has format {content['format']}, but this program reads format {FORMAT}.")
        samples = tuple(Sample(**sample) for sample in content["samples"])
        split = Split(folder, content["split"], tuple(content["classes"]), samples, content.get("fingerprint", ""))
    except FileNotFoundError:
        raise TrainingError(f"{file} is missing: the folder is not a split that Prepare wrote.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{file} is broken ({error!r}); run Prepare again.") from None
    if not samples:
        raise TrainingError(f"{file} lists no images.")
    for shard in sorted({sample.shard for sample in samples}):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise TrainingError(f"The shard {shard} is missing beside {file}.")
    return split


def classes_in_turn(order: Iterable[int], labels: Sequence[int]) -> list[int]:
    """Return the indices in `order`, but the first of each class before the second of any; `labels` are all images'."""
    seen: Counter[int] = Counter()
    rounds = {}  # how many of its class come before
    for index in order:
        rounds[index] = seen[labels[index]]
        seen[labels[index]] += 1
    return sorted(rounds, key=lambda index: rounds[index])


def write_split(
    folder: Path, split: str, images: Iterable[NewSample], classes: Sequence[str], fingerprint: str
) -> None:
    """Write `images` to `folder` in the order of class and name; the encoded bytes are copied as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)  # an older one would point into the middle of new shards
    labels = {name: label for label, name in enumerate(classes)}
    samples: list[Sample] = []
    for number, shard in enumerate(_shards(sorted(images, key=lambda image: (image.label, image.name)))):
        samples += _write_shard(folder / f"shard-{number:05}.tar", shard, labels)
    Split(folder, split, tuple(classes), tuple(samples), fingerprint).write_index()


def _shards(images: Sequence[NewSample]) -> Iterator[list[NewSample]]:
    """Yield the images in runs of at most SHARD_BYTES, or one larger image alone."""
    shard: list[NewSample] = []
    size = 0
    for image in images:
        if shard and size + image.size > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append(image)
        size += image.size
    if shard:
        yield shard


def _write_shard(path: Path, images: Sequence[NewSample], labels: Mapping[str, int]) -> Iterator[Sample]:
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for image in images:
            data = image.read()
            member = tarfile.TarInfo(image.name)
            member.size = len(data)  # times, owner and mode keep their defaults: the same data gives the same bytes
            archive.addfile(member, io.BytesIO(data))
            start = archive.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            yield Sample(path.name, start, len(data), labels[image.label], image.name, image.sha256)
