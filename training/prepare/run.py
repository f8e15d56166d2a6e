"""The Prepare job: from uploaded images to packed splits and a report of what was found."""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from training.paths import Paths
from training.prepare import duplicates, weights
from training.prepare.pack import pack
from training.prepare.source import Listing, list_images
from training.prepare.splits import Splits, absent, assign, check_classes
from training.prepare.verify import Broken, Verified, verify

SHOWN = 200  # entries of a list in the report; the counts are always whole


@dataclass(frozen=True)
class Options:
    valid_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0
    remove_duplicates: bool = True


def prepare(paths: Paths, options: Options) -> None:
    """Read `processing/input/dataset`, write data, weights and report below `processing/output`.

    Raises TrainingError with one sentence for the uploader when no classifier can be trained on the data.
    """
    warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
    folder = paths.processing_input("dataset")
    record = weights.read_dataset_record(folder)
    listing = list_images(folder)
    whole, broken = verify(listing.images)
    splits = assign(whole, valid_share=options.valid_share, test_share=options.test_share, seed=options.seed)
    leaks = duplicates.identical(splits)
    if options.remove_duplicates:
        splits = duplicates.without(splits, leaks)
    classes = check_classes(splits)
    fingerprint = str(record.get("fingerprint") or _fingerprint(whole))
    passed_on = weights.pass_on(folder, paths.processing_output("weights"), record)
    for name, images in splits.items():
        pack(paths.processing_output("data") / name, name, images, classes, fingerprint)
    report = {
        "format": 1,
        "fingerprint": fingerprint,
        "seed": options.seed,
        "classes": classes,
        "weights": passed_on,
        "splits": {name: _counts(images) for name, images in splits.items()},
        **_findings(splits, listing, broken),
        "identical": _pairs(leaks, removed=options.remove_duplicates),
        "warnings": absent(splits, classes),
    }
    output = paths.processing_output("report")
    output.mkdir(parents=True, exist_ok=True)
    (output / "prepare.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(_summary(report), flush=True)


def _findings(splits: Splits, listing: Listing, broken: Sequence[Broken]) -> dict[str, Any]:
    left_out = sorted([*listing.left_out, *((one.name, one.reason) for one in broken)])
    near = duplicates.near(splits)
    contradictory = duplicates.contradictory(splits)
    return {
        "left_out": {"count": len(left_out), "files": [{"name": n, "reason": r} for n, r in left_out[:SHOWN]]},
        "ignored_files": listing.ignored,
        "near_identical": _pairs(near, removed=False),
        "contradictory": {
            "count": len(contradictory),
            "pairs": [[a.found.source.name, b.found.source.name] for a, b in contradictory[:SHOWN]],
        },
    }


def _pairs(pairs: Sequence[duplicates.Pair], *, removed: bool) -> dict[str, Any]:
    shown = [{"name": a.found.source.name, "split": s, "as": b.found.source.name, "in": t} for a, s, b, t in pairs]
    return {"count": len(pairs), "removed": removed, "pairs": shown[:SHOWN]}


def _counts(images: Sequence[Verified]) -> dict[str, Any]:
    return {"images": len(images), "per_class": dict(sorted(Counter(image.found.label for image in images).items()))}


def _fingerprint(images: Sequence[Verified]) -> str:
    lines = "".join(sorted(f"{image.found.source.name} {image.sha256}\n" for image in images))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def _summary(report: dict[str, Any]) -> str:
    sizes = ", ".join(f"{split['images']} {name}" for name, split in report["splits"].items())
    lines = [f"{len(report['classes'])} classes; images: {sizes}"]
    lines += [f"left out: {file['name']} {file['reason']}" for file in report["left_out"]["files"][:20]]
    lines.append(
        f"{report['left_out']['count']} left out, {report['identical']['count']} identical across splits "
        f"({'removed' if report['identical']['removed'] else 'kept'}), "
        f"{report['near_identical']['count']} nearly identical (kept), "
        f"{report['contradictory']['count']} with contradictory classes"
    )
    return "\n".join(lines + [f"warning: {text}" for text in report["warnings"]])
