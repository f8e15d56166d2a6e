"""The default data: handwritten digits that scikit-learn brings along, as a tree of PNG files.

The 1,797 scans of 8 x 8 pixels are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and
C. Kaynak (UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49, CC BY 4.0).
"""

import gzip
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
ATTRIBUTION = __doc__
_SHARES = {"test": 0.15, "valid": 0.15}  # of each class; the rest is for training


def write_digits(folder: Path, *, seed: int = 0) -> Path:
    """Write `folder`/{train,valid,test}/{zero..nine}/*.png and return `folder`; the split is stratified by `seed`."""
    import numpy as np
    from PIL import Image

    images, labels = _read()
    for split, members in _split(labels, np.random.default_rng(seed)).items():
        for name in CLASSES:
            (folder / split / name).mkdir(parents=True, exist_ok=True)
        for number in members:
            path = folder / split / CLASSES[labels[number]] / f"{number:04d}.png"
            Image.fromarray(images[number]).save(path)
    (folder / "ATTRIBUTION.txt").write_text(ATTRIBUTION or "", encoding="utf-8")
    return folder


def _read() -> "tuple[NDArray[np.uint8], NDArray[np.uint8]]":
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
