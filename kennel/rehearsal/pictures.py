"""The pictures that the rehearsal shows to the Lambda: held-out ones of the prepared data, or the caller's own."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Picture:
    """`truth` is the class that its folder says, None where nobody knows."""

    name: str
    path: Path
    truth: str | None


def held_out(s3: Any, bucket: str, prefix: str, folder: Path, most: int) -> list[Picture]:
    """Fetch up to `most` pictures of the prepared split at `prefix` into `folder`, class by class in turn."""
    index = json.loads(s3.get_object(Bucket=bucket, Key=f"{prefix}/index.json")["Body"].read())
    folder.mkdir(exist_ok=True)
    fetched = []
    for number, sample in enumerate(islice(_in_turn(index["samples"]), most)):
        path = folder / f"{number}{Path(sample['name']).suffix}"
        path.write_bytes(_read(s3, bucket, prefix, sample))
        fetched.append(Picture(sample["name"], path, index["classes"][sample["label"]]))
    return fetched


def given(paths: Sequence[Path]) -> list[Picture]:
    """The files that `--photos` names, and those in the folders that it names."""
    files = chain.from_iterable(sorted(path.rglob("*")) if path.is_dir() else [path] for path in paths)
    return [Picture(path.name, path, None) for path in files if path.is_file()]


def _in_turn(samples: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    by_class: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for sample in samples:
        by_class[sample["label"]].append(sample)
    rounds = zip_longest(*(by_class[label] for label in sorted(by_class)))
    return (sample for sample in chain.from_iterable(rounds) if sample is not None)


def _read(s3: Any, bucket: str, prefix: str, sample: dict[str, Any]) -> bytes:
    last = sample["offset"] + sample["size"] - 1
    ranged = s3.get_object(Bucket=bucket, Key=f"{prefix}/{sample['shard']}", Range=f"bytes={sample['offset']}-{last}")
    body: bytes = ranged["Body"].read()
    return body
