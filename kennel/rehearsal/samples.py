"""The images of a rehearsal: the default data set, and the pictures that the Lambda classifies at the end.

The default data are the handwritten digits that scikit-learn brings along, written as a tree of PNG files.

The 1,797 scans of 8 x 8 pixels are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and
C. Kaynak (UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0).
"""

import gzip
import importlib.util
import io
import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kennel.errors import KennelError
from kennel.upload.folder import Tree

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ATTRIBUTION = __doc__.split("\n\n", 1)[1]
_HELD_OUT = 200  # pictures of classes that are held out, at most
_SHARES = {"test": 0.15, "valid": 0.15}  # of each class; the rest is for training


def write_digits(folder: Path, *, seed: int = 0) -> Path:
    """Write `folder`/{train,valid,test}/{zero..nine}/*.png and return `folder`; the split is stratified by `seed`."""
    import numpy as np
    from PIL import Image

    images, labels = _read_digits()
    for split, members in _split(labels, np.random.default_rng(seed)).items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for number in members:
            path = folder / split / CLASSES[labels[number]] / f"{number:04d}.png"
            Image.fromarray(images[number]).save(path)
    (folder / "ATTRIBUTION.txt").write_text(ATTRIBUTION or "", encoding="utf-8")
    return folder


def _read_digits() -> "tuple[NDArray[np.uint8], NDArray[np.uint8]]":
    """Return images [1797, 8, 8] (0 white, 255 ink) and labels [1797].

    The file is read in place: importing sklearn.datasets takes longer than all the rest.
    """
    import numpy as np

    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("scikit-learn holds the default data; install requirements-dev.txt or use --data.")
    packed = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz").read_bytes()
    table = np.loadtxt(io.BytesIO(gzip.decompress(packed)), delimiter=",", dtype=np.uint8)
    ink = table[:, :64].astype(np.uint16) * 255 // 16  # the file counts ink from 0 to 16
    return ink.astype(np.uint8).reshape(-1, 8, 8), table[:, 64]


def _split(labels: "NDArray[np.uint8]", random: "np.random.Generator") -> "dict[str, NDArray[np.int64]]":
    import numpy as np

    parts: dict[str, list[NDArray[np.int64]]] = {"train": [], "valid": [], "test": []}
    for label in range(len(CLASSES)):
        members = random.permutation(np.flatnonzero(labels == label))
        for split, share in _SHARES.items():
            taken, members = np.split(members, [round(share * len(np.flatnonzero(labels == label)))])
            parts[split].append(taken)
        parts["train"].append(members)
    return {split: np.sort(np.concatenate(chosen)) for split, chosen in parts.items()}


@dataclass(frozen=True)
class Picture:
    """`truth` is the class that its folder says, None where nobody knows; `foreign`: it shows none of the classes."""

    name: str
    path: Path
    truth: str | None
    foreign: bool = False


def held_out_pictures(s3: Any, bucket: str, prefix: str, folder: Path, most: int) -> list[Picture]:
    """Fetch up to `most` pictures of the prepared split at `prefix` into `folder`: always the same, of as many classes
    as there can be."""
    index = json.loads(s3.get_object(Bucket=bucket, Key=f"{prefix}/index.json")["Body"].read())
    folder.mkdir(exist_ok=True)
    fetched = []
    for number, sample in enumerate(islice(in_turn(index["samples"]), most)):
        path = folder / f"{number}{Path(sample['name']).suffix}"
        span = f"bytes={sample['offset']}-{sample['offset'] + sample['size'] - 1}"
        part = s3.get_object(Bucket=bucket, Key=f"{prefix}/{sample['shard']}", Range=span)
        path.write_bytes(part["Body"].read())
        fetched.append(Picture(sample["name"], path, index["classes"][sample["label"]]))
    return fetched


def given_pictures(paths: Sequence[Path], *, foreign: bool = False) -> list[Picture]:
    """Return the files that `--photos` names, and those in the folders that it names."""
    files = chain.from_iterable(sorted(path.rglob("*")) if path.is_dir() else [path] for path in paths)
    return [Picture(path.name, path, None, foreign) for path in files if path.is_file()]


def hold_out(tree: Tree, count: int, folder: Path, *, seed: int) -> list[Picture]:
    """Write `tree` into `folder` without `count` of its classes, and return pictures of these (of the test split).

    Raise KennelError where fewer than two classes would be left.
    """
    if len(tree.classes) - count < 2:
        raise KennelError(f"--hold-out {count} leaves fewer than two of {len(tree.classes)} classes; hold out fewer.")
    absent = set(random.Random(seed).sample(tree.classes, count))
    depth = 1 if tree.splits else 0
    held = [image for image in tree.images if image.name.split("/")[depth] in absent]
    for image in set(tree.images) - set(held):
        target = folder / image.name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(image.path)
        except OSError:  # another file system
            shutil.copyfile(image.path, target)
    tested = [image for image in held if image.name.lower().startswith("test/")] if "test" in tree.splits else held
    chosen = random.Random(seed).sample(tested, min(_HELD_OUT, len(tested)))
    return [Picture(image.name, image.path, None, foreign=True) for image in chosen]


def in_turn(samples: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield one of each class, then another of each; classes and images in an order of chance, but always the same."""
    by_class: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for sample in random.Random(0).sample(samples, len(samples)):
        by_class[sample["label"]].append(sample)
    rounds = zip_longest(*by_class.values())
    return (sample for sample in chain.from_iterable(rounds) if sample is not None)
