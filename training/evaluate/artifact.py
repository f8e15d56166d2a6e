"""The model artifact as Evaluate uses it: unpacked, checked against its provenance record, compiled and run."""

import hashlib
import json
import math
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import openvino  # type: ignore[import-untyped]
from numpy.typing import NDArray

from training import known
from training.calibration import Floats
from training.distributed.cluster import supports_bfloat16
from training.errors import TrainingError
from training.evaluate.scores import Answers
from training.split import Split
from training.transform import Preprocessing, open_rgb, to_array

BATCH = 16  # images
_FILES = ("model.json", "model.xml", "model.bin")
_INT8 = ("model-int8.xml", "model-int8.bin")
_OPTIONAL = (*_INT8, known.FILE)
_EXTRACTED = (*_FILES, *_OPTIONAL, "passport.json")
_CHUNK = 1 << 20  # bytes
_NAMED = 3  # classes in an error's text


@dataclass(frozen=True)
class Provenance:
    """What evaluation.json says of passport.json; all None for an artifact of a version that wrote none."""

    sha256: str | None = None
    data_fingerprint: str | None = None
    code_sha256: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Model:
    """A model compiled for this machine's CPU."""

    classes: tuple[str, ...]
    how: Preprocessing
    temperature: float
    threshold: float | None  # confidence below which the answer is "not sure"
    reference: known.Reference | None  # by which a picture is known; None in an artifact of an early version
    record: dict[str, Any]  # model.json
    compiled: Mapping[str, Any]  # openvino.CompiledModel by the precision in which it may be served; float32 first

    @property
    def known_threshold(self) -> float | None:
        """The least similarity of a known image; None: all count as known."""
        return self.reference.threshold if self.reference else None


def unpack(archive: Path, folder: Path) -> Provenance:
    """Write the files of model.tar.gz that evaluation needs into `folder`.

    Raise TrainingError for an archive that is missing or broken, or whose files are not those of its provenance record.
    """
    try:
        hashes = _extract(archive, folder)
    except FileNotFoundError:
        raise TrainingError(f"{archive} is missing; the input `model` must be a training job's artifact.") from None
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TrainingError(f"{archive} cannot be unpacked ({error}).") from None
    if missing := [name for name in _FILES if name not in hashes]:
        raise TrainingError(f"{archive} has no {', '.join(missing)}; it is not a model of this training program.")
    return _check(folder / "passport.json", hashes) if "passport.json" in hashes else Provenance()


def _extract(archive: Path, folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file; those that evaluation does not need are hashed and not written."""
    hashes = {}
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            source = tar.extractfile(member) if member.isfile() else None
            if source is not None:
                target = folder / name if name in _EXTRACTED else Path("/dev/null")
                with source, target.open("wb") as sink:
                    hashes[name] = _copy(source, sink)
    return hashes


def _copy(source: IO[bytes], sink: IO[bytes]) -> str:
    """Copy all bytes and return their SHA-256."""
    digest = hashlib.sha256()
    while data := source.read(_CHUNK):
        digest.update(data)
        sink.write(data)
    return digest.hexdigest()


def _check(file: Path, hashes: dict[str, str]) -> Provenance:
    """Return what passport.json says; raise TrainingError if the files are not the ones that it names."""
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        recorded = dict(content["files"])
        provenance = Provenance(
            hashes["passport.json"], content["data"]["fingerprint"], content["code"]["sha256"], content["image"]
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(f"passport.json of the model is broken ({error!r}); train it again.") from None
    used = {*_FILES, *(name for name in _OPTIONAL if name in hashes)}
    for name in (*_FILES, *sorted((recorded.keys() | used) - set(_FILES))):
        if hashes.get(name) != recorded.get(name):
            raise TrainingError(
                f"{name} is not the file that the model's passport.json names: the artifact was changed after "
                "training; train it again."
            )
    return provenance


def load(folder: Path) -> Model:
    """Compile the network in each precision that the artifact offers and this machine has instructions for.

    int8 is always compiled where it is offered: every processor can run it, if slowly. Raise TrainingError for an
    unusable model.json or network.
    """
    try:
        record = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        if record["format"] != 1:
            raise TrainingError(f"model.json has format {record['format']}, but this program reads format 1.")
        classes, how = tuple(record["classes"]), Preprocessing.from_dict(record["preprocessing"])
        temperature = float(record.get("temperature", 1.0))
        threshold = float(record["abstain"]["threshold"]) if record.get("abstain") else None
        reference = known.Reference.load(folder, record["known"]) if record.get("known") else None
        int8 = bool((record.get("exports") or {}).get("int8", {}).get("accepted"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f"model.json of the model is broken ({error!r}).") from None
    if not 0 < temperature < math.inf:
        raise TrainingError(f"model.json of the model is broken: a temperature must be above 0, not {temperature}.")
    compiled = {"float32": _compile(folder / "model.xml", "f32")}
    if supports_bfloat16():
        compiled["bfloat16"] = _compile(folder / "model.xml", "bf16")
    if int8:
        compiled["int8"] = _compile(folder / _INT8[0], "f32")  # the hint is for the layers that are not quantized
    return Model(classes, how, temperature, threshold, reference, record, compiled)


def _compile(file: Path, hint: str) -> Any:
    try:
        return openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    except RuntimeError as error:
        raise TrainingError(f"OpenVINO cannot load {file.name}: {error}.") from None


@dataclass(frozen=True)
class Decoded:
    """A photo as the network takes it, `pixels` float32 [3, crop, crop], and the `size` and `length` of its file."""

    pixels: NDArray[np.float32]
    size: tuple[int, int]  # width and height
    length: int  # bytes


def decode(data: bytes, how: Preprocessing) -> Decoded:
    """Return the photo; raise what Pillow raises."""
    picture = open_rgb(data)
    return Decoded(to_array(picture, how), picture.size, len(data))


def classify(
    model: Model, split: Split, look: Callable[[Sequence[Decoded], Any], object] = lambda batch, outputs: None
) -> dict[str, Answers]:
    """Return the answers for every image of `split`, by precision. One batch is in memory at a time.

    `look` is called with each batch and float32's outputs for it. Raise TrainingError for classes that are not the
    model's, images that cannot be decoded, and logits that are not finite or not one for each class.
    """
    if split.classes != model.classes:
        raise TrainingError(_difference(model.classes, split.classes))
    labels = np.array([sample.label for sample in split.samples], np.int64)
    parts: dict[str, list[Answers]] = {precision: [] for precision in model.compiled}
    start = 0
    for batch in _batches(model.how, split):
        pixels = np.stack([one.pixels for one in batch])
        for precision, compiled in model.compiled.items():
            outputs = compiled(pixels)
            logits = _logits(outputs, pixels, len(model.classes))
            answers = Answers.from_logits(logits, labels[start : start + len(batch)], model.temperature)
            parts[precision].append(replace(answers, similarity=similarity(outputs, model.reference)))
            if precision == "float32":
                look(batch, outputs)
        start += len(batch)
    return {precision: Answers.join(some) for precision, some in parts.items()}


def _logits(outputs: Any, batch: NDArray[np.float32], classes: int) -> NDArray[Any]:
    logits: NDArray[Any] = outputs[0]  # [batch, classes]
    if logits.shape != (len(batch), classes):
        raise TrainingError(
            f"The model returns an array of shape {list(logits.shape)} for {len(batch)} images of {classes} classes."
        )
    if not np.isfinite(logits).all():
        raise TrainingError("The model returns infinite or undefined numbers; it cannot be used.")
    return logits


def similarity(outputs: Any, reference: known.Reference | None) -> Floats:
    """Return the score of each image, none without a reference."""
    if reference is None or reference.threshold is None:
        return np.empty(0)
    if len(outputs) < 2 or outputs[1].shape[1:] != reference.rows.shape[1:]:
        raise TrainingError(f"The model gives no embedding for the reference in {known.FILE}; train it again.")
    return reference.scores(outputs[1]).astype(np.float64)


def _difference(known: tuple[str, ...], tested: tuple[str, ...]) -> str:
    unknown, absent = (sorted(set(one) - set(other)) for one, other in ((tested, known), (known, tested)))
    named = [
        f"{what} {', '.join(repr(name) for name in names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}"
        for what, names in (("the model does not know", unknown), ("the test split lacks", absent))
        if names
    ]
    which = "; ".join(named) or "the same ones in another order"
    return f"The model and the test split have different classes ({which}); both must come from one Prepare job."


def _batches(how: Preprocessing, split: Split) -> Iterator[list[Decoded]]:
    """Yield the images, one batch decoded at a time."""

    def one(index: int) -> Decoded:
        try:
            return decode(split.read(index), how)
        except OSError as error:
            raise TrainingError(f"{split.samples[index].name} cannot be decoded ({error}).") from error

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(split), BATCH):
            yield list(pool.map(one, range(start, min(start + BATCH, len(split)))))
