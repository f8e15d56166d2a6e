"""What the network and a few simple measures say of a photo: the numbers in which windows are compared."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.calibration import Floats, Labels, softmax
from training.errors import TrainingError
from training.evaluate.artifact import BATCH, Decoded, Model, decode, similarity
from training.transform import Preprocessing

SCALARS = (
    "top probability",
    "entropy",
    "similarity",
    "brightness",
    "contrast",
    "sharpness",
    "colour",
    "aspect",
    "bytes",
)
_REFERENCE = "drift-reference.npz"
_LEAST = 100  # photos of a reference


@dataclass(frozen=True)
class Observations:
    """Of N photos: `embedding` [N, D], `probabilities` [N, classes], `scalars` [N, 9] as SCALARS names them."""

    embedding: NDArray[Any]
    probabilities: Floats
    scalars: Floats

    def __len__(self) -> int:
        return len(self.scalars)

    @property
    def confidence(self) -> Floats:
        return np.asarray(self.probabilities.max(1))

    @property
    def predicted(self) -> Labels:
        return np.asarray(self.probabilities.argmax(1), np.int64)

    def take(self, chosen: Any) -> "Observations":
        """Return the photos that an index array, a mask or a slice names."""
        return Observations(*(getattr(self, spec.name)[chosen] for spec in fields(self)))

    @classmethod
    def join(cls, parts: "list[Observations]") -> "Observations":
        return cls(*(np.concatenate([getattr(part, spec.name) for part in parts]) for spec in fields(cls)))


@dataclass(frozen=True)
class Reference:
    """What the exported network says of the test split, which neither training nor its thresholds have seen."""

    seen: Observations
    labels: Labels


def observe(model: Model, images: Iterable[bytes]) -> Iterator[Observations | None]:
    """Yield one photo's observations each, None for what cannot be decoded; one batch is in memory at a time."""
    waiting = iter(images)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(waiting, BATCH)):
            decoded = list(pool.map(lambda image: _decoded(image, model.how), batch))
            good = [one for one in decoded if one is not None]
            outputs = model.compiled["float32"](np.stack([one.pixels for one in good])) if good else None
            seen = observations(model, good, outputs) if good else None
            rows = iter(range(len(good)))
            for one in decoded:
                yield None if one is None or seen is None else seen.take([next(rows)])


def _decoded(image: bytes, how: Preprocessing) -> Decoded | None:
    try:
        return decode(image, how)
    except Exception:  # whatever Pillow raises for what callers send
        return None


def observations(model: Model, batch: Sequence[Decoded], outputs: Any) -> Observations:
    """Return what is to be compared of a batch and the float32 network's outputs for it."""
    logits = np.asarray(outputs[0])
    named = {name: value for port, value in outputs.to_dict().items() for name in port.get_names()}
    probabilities = softmax(logits, model.temperature)
    entropy = -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(1)
    alike = similarity(outputs, model.reference)  # to the training images
    own = np.stack([probabilities.max(1), entropy, alike if len(alike) else np.ones(len(batch))], axis=1)
    scalars = np.concatenate([own, np.array([_measures(one, model.how) for one in batch])], axis=1)
    # A graph of an older version gives no embedding: its logits stand in.
    return Observations(np.asarray(named.get("embedding", logits), np.float32), probabilities, scalars)


def _measures(photo: Decoded, how: Preprocessing) -> list[float]:
    """Return brightness, contrast, sharpness, colour (all of the network's input, values 0 to 1), aspect, bytes."""
    pixels = photo.pixels.transpose(1, 2, 0) * np.asarray(how.std) + np.asarray(how.mean)
    grey = pixels.mean(2)
    laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    sharpness = float(np.log(laplacian.var() + 1e-6)) if laplacian.size else 0.0
    aspect = float(np.log(photo.size[0] / photo.size[1]))
    return [
        float(grey.mean()),
        float(grey.std()),
        sharpness,
        float(pixels.std(2).mean()),
        aspect,
        float(np.log(photo.length)),
    ]


def write_reference(seen: Observations, labels: Labels, folder: Path) -> None:
    """Write drift-reference.npz: what the exported network says of the test split's images, and their labels."""
    np.savez_compressed(
        folder / _REFERENCE,
        embedding=seen.embedding.astype(np.float16),
        probabilities=seen.probabilities.astype(np.float32),
        scalars=seen.scalars,
        labels=labels,
    )


def read_reference(folder: Path, classes: int) -> Reference:
    """Return what Evaluate wrote; raise TrainingError for a file that is missing, broken or of another model."""
    file = folder / _REFERENCE
    try:
        with np.load(file, allow_pickle=False) as found:
            names = ("embedding", "probabilities", "scalars")
            seen = Observations(*(np.asarray(found[name], np.float64) for name in names))
            labels = np.asarray(found["labels"], np.int64)
    except FileNotFoundError:
        raise TrainingError(f"{file} is missing: it lies beside the evaluation.json of the served model.") from None
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise TrainingError(f"{file} is broken ({error!r}); evaluate the model again.") from None
    if seen.probabilities.shape != (len(labels), classes) or not len(labels):
        raise TrainingError(f"{file} is of another model: it has not the {classes} classes of this one.")
    if len(labels) < _LEAST:
        raise TrainingError(f"Drift needs a test split of at least {_LEAST} images; this model's has {len(labels)}.")
    return Reference(seen, labels)
