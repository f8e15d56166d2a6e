"""A prepared split: `index.json` and uncompressed tar shards in which every image is one read at a known place."""

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from training.errors import TrainingError

FORMAT = 1


@dataclass(frozen=True)
class Sample:
    """One image; offset and size in bytes address its data inside the shard."""

    shard: str
    offset: int
    size: int
    label: int
    name: str
    sha256: str


@dataclass(frozen=True)
class Split:
    """Images of one split. Picklable: each process opens the shards for itself."""

    folder: Path
    split: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> bytes:
        """Return the encoded image; raises TrainingError if the shard is shorter than the index says."""
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
    """Read a split that Prepare wrote; raises TrainingError if it is missing, empty or of another format."""
    file = folder / "index.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise TrainingError(f"{file} has format {content['format']}, but this program reads format {FORMAT}.")
        samples = tuple(Sample(**sample) for sample in content["samples"])
        split = Split(folder, content["split"], tuple(content["classes"]), samples, content.get("fingerprint", ""))
    except FileNotFoundError:
        raise TrainingError(f"{file} is missing: the folder is no split that Prepare wrote.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(f"{file} is broken ({error!r}); run Prepare again.") from None
    if not samples:
        raise TrainingError(f"{file} lists no images.")
    for shard in sorted({sample.shard for sample in samples}):
        if Path(shard).name != shard or not (folder / shard).is_file():
            raise TrainingError(f"The shard {shard} is missing beside {file}.")
    return split
