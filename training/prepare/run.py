"""The Prepare job: from uploaded images to packed splits and a report of what was found."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from training.errors import TrainingError
from training.paths import Paths
from training.prepare import duplicates, report, weights
from training.prepare.pack import pack
from training.prepare.report import Findings
from training.prepare.source import list_images
from training.prepare.splits import Splits, assign, check_classes, doubts, few
from training.prepare.verify import Verified, verify


@dataclass(frozen=True)
class Options:
    """`duplicates`: fail, remove or report; `mode`: auto, head or whole."""

    valid_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0
    duplicates: str = "fail"
    mode: str = "auto"


def prepare(paths: Paths, options: Options) -> None:
    """Read `processing/input/dataset`, write data, weights and report below `processing/output`.

    Raises TrainingError with one sentence for the uploader when no classifier can be trained on the data, or when
    images are in two splits and nobody said what to do with them; the report is then written all the same.
    """
    _quiet_pillow()
    folder = paths.processing_input("dataset")
    data, weights_to, report_to = (_writable(paths.processing_output(name)) for name in ("data", "weights", "report"))
    record = weights.read_dataset_record(folder)
    passed_on = weights.pass_on(folder, weights_to, record)
    mode = weights.choose_mode(options.mode, passed_on)
    splits, classes, found, content_hash = _look_through(folder, options)
    fingerprint = str(record.get("fingerprint") or content_hash)
    content = {
        "format": 1,
        "fingerprint": fingerprint,
        "seed": options.seed,
        "mode": mode,
        "classes": classes,
        "weights": passed_on,
        **report.describe(splits, found),
    }
    report.write(report_to, content)
    print(report.summary(content), flush=True)
    if found.fails:
        print(report.leaks(content), flush=True)
        raise duplicates.failure(found.leaks)
    for name, images in splits.items():
        pack(data / name, name, images, classes, fingerprint)


def _look_through(folder: Path, options: Options) -> tuple[Splits, list[str], Findings, str]:
    """Return the images by split, the classes, what is to be said of them, and the fingerprint of all whole images."""
    listing = list_images(folder)
    whole, broken = verify(listing.images)
    duplicates.refuse_same_names(whole)
    sorted_out = duplicates.sort_out(whole)
    splits = assign(sorted_out.kept, valid_share=options.valid_share, test_share=options.test_share, seed=options.seed)
    leaks = duplicates.identical(splits)
    if options.duplicates == "remove":
        splits = duplicates.without(splits, leaks)
    classes = check_classes(splits)
    left_out = [*listing.left_out, *((one.name, one.reason) for one in broken)]
    doubtful = [*doubts(splits, classes, listing.labels), *_animations(whole)]
    found = Findings(left_out, listing.ignored, sorted_out, leaks, options.duplicates, doubtful)
    return splits, classes, found, _fingerprint(whole)


def _quiet_pillow() -> None:
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    # A picture with broken EXIF data is taken as it lies; thousands of warnings would hide everything else.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def _writable(folder: Path) -> Path:
    """Make `folder`; raises TrainingError now rather than when hours of decoding are to be written down."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"The folder {folder} cannot be made: {error.strerror}.") from error
    if not os.access(folder, os.W_OK):
        raise TrainingError(f"The folder {folder} cannot be written; mount it for writing.")
    return folder


def _animations(images: Sequence[Verified]) -> list[str]:
    names = [image.name for image in images if image.animated]
    return [f"{len(names)} images hold several pictures, of which the first counts: {few(names)}"] if names else []


def _fingerprint(images: Sequence[Verified]) -> str:
    lines = "".join(sorted(f"{image.name} {image.sha256}\n" for image in images))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
