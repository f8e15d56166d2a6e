"""The Prepare job: from an uploaded data set to packed splits, with prepare.json about what was found in it."""

import hashlib
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from training.errors import TrainingError
from training.hyperparameters import HEAD_MODES
from training.layout import few
from training.passport import file_sha256
from training.paths import Paths, writable
from training.prepare import duplicates
from training.prepare.dataset import list_images, printable
from training.prepare.duplicates import Pair, Unique
from training.prepare.splits import Splits, assign, check_classes, warnings_of
from training.prepare.verify import Verified, verify
from training.split import NewSample, write_split

SHOWN = 1000  # entries of a list in prepare.json; the counts are always complete
_LOGGED = 20  # images left out that the log names


@dataclass(frozen=True)
class Options:
    """The arguments of the job. `duplicates`: fail, remove or report; `mode`: auto, head or whole."""

    duplicates: str = "fail"
    mode: str = "auto"


@dataclass(frozen=True)
class Findings:
    """What there is to say of a data set beside its splits."""

    left_out: Sequence[tuple[str, str]]  # names and reasons, but for copies
    ignored: int  # files that are not images
    unique: Unique
    leaks: Sequence[Pair]  # images with the same bytes in two splits
    warnings: Sequence[str]
    fingerprint: str  # of all whole images


def prepare(paths: Paths, options: Options) -> None:
    """Read `processing/input/dataset`, write data, weights and report below `processing/output`.

    Raise TrainingError with one sentence for the uploader if no classifier can be trained on the data, or if images are
    in two splits and the options do not say what to do with them; prepare.json is then written all the same.
    """
    _quiet_pillow()
    folder = paths.processing_input("dataset")
    data, weights_to, report_to = (writable(paths.processing_output(name)) for name in ("data", "weights", "report"))
    record = _read_dataset_record(folder)
    passed_on = _pass_on(folder, weights_to, record)
    mode = _choose_mode(options.mode, passed_on)
    splits, classes, found = _examine(folder, options)
    content = {
        "format": 1,
        "fingerprint": str(record.get("fingerprint") or found.fingerprint),
        "mode": mode,
        "classes": classes,
        "weights": passed_on,
        **_describe(splits, found, options.duplicates),
    }
    (report_to / "prepare.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(_summary(content), flush=True)
    if found.leaks and options.duplicates == "fail":
        for one in content["identical"]["pairs"]:
            print(f"in two splits: {one['name']} ({one['split']}) = {one['as']} ({one['in']})", flush=True)
        raise duplicates.failure(found.leaks)
    for name, images in splits.items():
        write_split(data / name, name, map(_sample, images), classes, content["fingerprint"])


def _quiet_pillow() -> None:
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    # An image with broken EXIF data is taken as it is; thousands of warnings would hide everything else.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _examine(folder: Path, options: Options) -> tuple[Splits, list[str], Findings]:
    """Return the images by split, the classes, and what else was found."""
    listing = list_images(folder)
    whole, broken = verify(listing.images)
    duplicates.refuse_same_names(whole)
    unique = duplicates.unique(whole)
    splits = assign(unique.kept)
    leaks = duplicates.identical(splits)
    if options.duplicates == "remove":
        splits = duplicates.without(splits, leaks)
    classes = check_classes(splits)
    left_out = [*listing.left_out, *broken]
    warned = [*warnings_of(splits, classes, listing.labels), *_of_pictures(whole)]
    return splits, classes, Findings(left_out, listing.ignored, unique, leaks, warned, _fingerprint(whole))


def _of_pictures(images: Sequence[Verified]) -> list[str]:
    """Return what there is to say of some of the pictures, although they are used."""
    said: dict[str, Callable[[Verified], bool]] = {
        "files contain several images, of which the first is used": lambda image: image.animated,
        "16-bit images use 12 bits or fewer, so they are nearly black and keep 16 grey levels at most (the upper 8 "
        "bits count); scale their values to the whole range": lambda image: image.dim,
        "images are TIFF or BMP, which the endpoint does not read: callers must send such pictures as JPEG or PNG, "
        "as `kennel invoke` does by itself": lambda image: image.kind in ("TIFF", "BMP"),
    }
    found = {text: [image.name for image in images if applies(image)] for text, applies in said.items()}
    return [f"{len(names)} {text}: {few(names)}" for text, names in found.items() if names]


def _fingerprint(images: Sequence[Verified]) -> str:
    lines = "".join(sorted(f"{image.name} {image.sha256}\n" for image in images))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _sample(image: Verified) -> NewSample:
    source = image.found.source
    return NewSample(image.found.label, image.found.name, image.sha256, source.size, source.read)


def _describe(splits: Splits, found: Findings, option: str) -> dict[str, Any]:
    """Return the part of prepare.json that is about the images."""
    removed, failed = option == "remove", option == "fail" and bool(found.leaks)
    gone = [(image.name, f"has the same bytes as {other.name} in {its}") for image, _, other, its in found.leaks]
    left_out = sorted({*found.left_out, *found.unique.left_out, *(gone if removed else ())})
    contradictory = [[image.name for image in group] for group in found.unique.contradictory]
    return {
        "splits": {name: _counts(images) for name, images in splits.items()},
        "left_out": {"count": len(left_out), "files": [{"name": n, "reason": r} for n, r in left_out[:SHOWN]]},
        "ignored_files": found.ignored,
        # A job that fails for them lists all: somebody has to delete each.
        "identical": _pairs(found.leaks, None if failed else SHOWN) | {"removed": removed},
        "near_identical": _pairs(duplicates.near(splits), SHOWN) | {"removed": False},
        "copies": {"count": len(found.unique.copies)},
        "contradictory": {"count": len(contradictory), "groups": contradictory[:SHOWN]},
        "warnings": list(found.warnings),
    }


def _pairs(pairs: Sequence[Pair], shown: int | None) -> dict[str, Any]:
    listed = [{"name": a.name, "split": s, "as": b.name, "in": t} for a, s, b, t in pairs[:shown]]
    return {"count": len(pairs), "pairs": listed}


def _counts(images: Sequence[Verified]) -> dict[str, Any]:
    return {"images": len(images), "per_class": dict(sorted(Counter(image.found.label for image in images).items()))}


def _summary(report: dict[str, Any]) -> str:
    """Return the lines for the log; names contain no line breaks."""
    sizes = ", ".join(f"{split['images']} {name}" for name, split in report["splits"].items())
    lines = [f"{len(report['classes'])} classes; images: {sizes}; training mode {report['mode']}"]
    lines += [f"left out: {file['name']} {file['reason']}" for file in report["left_out"]["files"][:_LOGGED]]
    lines.append(
        f"{report['left_out']['count']} left out, of which {report['copies']['count']} copies within a split; "
        f"{report['identical']['count']} identical across splits "
        f"({'removed' if report['identical']['removed'] else 'kept'}), "
        f"{report['near_identical']['count']} nearly identical (kept), "
        f"{report['contradictory']['count']} images in several classes (left out)"
    )
    return "\n".join(lines + [f"warning: {text}" for text in report["warnings"]])


def _read_dataset_record(folder: Path) -> dict[str, Any]:
    """Return the uploaded dataset.json, or an empty dictionary for a folder without one."""
    file = folder / "dataset.json"
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"dataset.json is broken ({error}); upload the data set again.") from None
    if not isinstance(record, dict):
        raise TrainingError("dataset.json must be a JSON object; upload the data set again.")
    return record


def _pass_on(folder: Path, output: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Copy the weights that dataset.json names (if none: the one file in weights/) and return weights.json's content.

    weights.json is always written: SageMaker refuses an empty channel. Raise TrainingError for weights that are
    missing, empty, ambiguous or not the named ones.
    """
    named = record.get("weights")
    name = _named(named) if named else _only_file(folder / "weights")
    content: dict[str, Any] = {"file": None}
    if name:
        content = {"file": name, "sha256": _sha256(folder / "weights" / name)}
        if named and content["sha256"] != named.get("sha256"):
            raise TrainingError(
                f"weights/{name} has SHA-256 {content['sha256']}, but dataset.json says {named.get('sha256')}."
            )
        shutil.copyfile(folder / "weights" / name, output / name)
    (output / "weights.json").write_text(json.dumps(content), encoding="utf-8")
    return content


def _choose_mode(mode: str, weights: dict[str, Any]) -> str:
    """Return the training mode, one of MODES; raise TrainingError for head or finetune without weights."""
    if mode in HEAD_MODES and not weights["file"]:
        raise TrainingError(
            f"Mode {mode} needs pretrained weights and the data set has none: upload it with --weights, or train in "
            "mode whole."
        )
    if mode != "auto":
        return mode
    return "head" if weights["file"] else "whole"


def _named(named: Any) -> str:
    name = named.get("file") if isinstance(named, dict) else None
    if not isinstance(name, str) or not name or Path(name).name != name or name == "weights.json":
        raise TrainingError(f"dataset.json names weights as {named!r}; expected the file's name and its sha256.")
    return name


def _only_file(folder: Path) -> str | None:
    files = sorted(file for file in folder.glob("*") if file.suffix in (".pth", ".pt"))
    if len(files) > 1:
        names = ", ".join(printable(file.name) for file in files[:5])
        raise TrainingError(f"The folder weights has {len(files)} files ({names}); leave only the one to start from.")
    return files[0].name if files else None


def _sha256(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        raise TrainingError(f"The weights file weights/{path.name} is missing; upload the data set with it again.")
    if path.stat().st_size == 0:
        raise TrainingError(f"The weights file weights/{path.name} is empty; upload the data set with a complete one.")
    return file_sha256(path)
