"""What Prepare found, as prepare.json and as lines of the job's log."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.prepare import duplicates
from training.prepare.duplicates import Pair, Sorted
from training.prepare.splits import Splits
from training.prepare.verify import Verified

SHOWN = 1000  # entries of a list; the counts are always whole
_LOGGED = 20


@dataclass(frozen=True)
class Findings:
    """`left_out` are names and reasons; `leaks` are byte-identical images across splits."""

    left_out: Sequence[tuple[str, str]]
    ignored: int
    sorted_out: Sorted
    leaks: Sequence[Pair]
    duplicates: str  # the option: fail, remove, report
    warnings: Sequence[str]

    @property
    def fails(self) -> bool:
        return self.duplicates == "fail" and bool(self.leaks)


def describe(splits: Splits, found: Findings) -> dict[str, Any]:
    """Return the part of prepare.json that tells of the images."""
    removed = found.duplicates == "remove"
    gone = [(image.name, f"is byte for byte {other.name} of {its}") for image, _, other, its in found.leaks if removed]
    left_out = sorted({*found.left_out, *found.sorted_out.left_out, *gone})
    return {
        "splits": {name: _counts(images) for name, images in splits.items()},
        "left_out": {"count": len(left_out), "files": [{"name": n, "reason": r} for n, r in left_out[:SHOWN]]},
        "ignored_files": found.ignored,
        # Whoever must mend them needs all of them.
        "identical": _pairs(found.leaks, None if found.fails else SHOWN) | {"removed": removed},
        "near_identical": _pairs(duplicates.near(splits), SHOWN) | {"removed": False},
        "copies": {"count": len(found.sorted_out.copies)},
        "contradictory": _groups(found.sorted_out.contradictory),
        "warnings": list(found.warnings),
    }


def write(folder: Path, report: dict[str, Any]) -> None:
    (folder / "prepare.json").write_text(json.dumps(report, indent=1), encoding="utf-8")


def summary(report: dict[str, Any]) -> str:
    """Return the lines for the log; names hold no line breaks."""
    sizes = ", ".join(f"{split['images']} {name}" for name, split in report["splits"].items())
    lines = [f"{len(report['classes'])} classes; images: {sizes}; training learns the {report['mode']}"]
    lines += [f"left out: {file['name']} {file['reason']}" for file in report["left_out"]["files"][:_LOGGED]]
    lines.append(
        f"{report['left_out']['count']} left out, of which {report['copies']['count']} copies within a split; "
        f"{report['identical']['count']} identical across splits "
        f"({'removed' if report['identical']['removed'] else 'kept'}), "
        f"{report['near_identical']['count']} nearly identical (kept), "
        f"{report['contradictory']['count']} pictures in several classes (left out)"
    )
    return "\n".join(lines + [f"warning: {text}" for text in report["warnings"]])


def leaks(report: dict[str, Any]) -> str:
    """Return a line for the log for each image that is in two splits."""
    pairs = report["identical"]["pairs"]
    return "\n".join(f"in two splits: {one['name']} ({one['split']}) = {one['as']} ({one['in']})" for one in pairs)


def _pairs(pairs: Sequence[Pair], shown: int | None) -> dict[str, Any]:
    listed = [{"name": a.name, "split": s, "as": b.name, "in": t} for a, s, b, t in pairs[:shown]]
    return {"count": len(pairs), "pairs": listed}


def _groups(groups: Sequence[Sequence[Verified]]) -> dict[str, Any]:
    return {"count": len(groups), "groups": [[image.name for image in group] for group in groups[:SHOWN]]}


def _counts(images: Sequence[Verified]) -> dict[str, Any]:
    return {"images": len(images), "per_class": dict(sorted(Counter(image.found.label for image in images).items()))}
