"""Renders the report as one HTML file that loads nothing else: styles and pictures are inside."""

import base64
import io
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kennel.console import Step
from kennel.rehearsal.interfaces import CoverageRow
from kennel.rehearsal.report.content import RehearsalReport

_NAMES = {
    "accuracy": "Accuracy",
    "accuracy_lower": "Lower end of its 95 % interval",
    "served_accuracy_lower": "The same in the least accurate precision served",
    "worst_classes_recall": "Mean recall of the ten worst classes",
    "uncalibrated_error": "The same before calibration",
    "top5_accuracy": "Right class among the best five",
    "macro_f1": "Macro F1",
    "expected_calibration_error": "Expected calibration error",
}
_SIDE = 320  # pixels of a thumbnail: a card is half as wide, on a dense screen
_SMALL = 64  # pixels up to which a picture is enlarged without smoothing
_ORDER = ("stand-in", "partial", "accepted", "enacted")  # the least faithful first


@dataclass(frozen=True)
class ResourceType:
    """The resources of one type; `counts` are by status, `notes` without repetition."""

    type: str
    counts: Mapping[str, int]
    notes: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def worst(self) -> str:
        return min(self.counts, key=lambda status: (*_ORDER, status).index(status))


def render(report: RehearsalReport) -> str:
    """Return the page; the template escapes every text that comes from outside."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=share, duration=duration, title=_title, figure=_figure)
    environment.globals.update(thumbnail=thumbnail)
    return environment.get_template("page.html.j2").render(
        report=report,
        verdict=_verdict(report),
        bars=_bars(report.steps, report.seconds),
        scores=_scores(report),
        coverage=_by_type(report.coverage),
        judged=Counter(one.right for one in report.predictions if not one.error),
        broken=sum(bool(one.error) for one in report.predictions),
    )


def share(value: float | None) -> str:
    """Return a fraction as a percentage; only 1 itself becomes 100."""
    if value is None:
        return "none"
    text = f"{100 * value:.1f}"
    return ("99.9" if text == "100.0" and value < 1 else text) + " %"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


def _verdict(report: RehearsalReport) -> tuple[str, str]:
    """Return good or bad, and the sentence that says why."""
    failed = [step for step in report.steps if step.status == "failed"]
    reason = report.failure or (failed[0].detail if failed else "")
    if reason or failed:
        where = f"{failed[-1].name}: " if failed else ""
        return "bad", f"{where}{reason or 'failed'}"
    if report.denied:
        calls = "1 denied call" if len(report.denied) == 1 else f"{len(report.denied)} denied calls"
        return "bad", f"{calls}: the synthesized policies lack a permission."
    return "good", "Every step of the deployed system ran: training, release and prediction."


def _bars(steps: Sequence[Step], total: float) -> list[tuple[Step, float, float]]:
    """Return (step, left, width) in percent of the whole; a bar is never too thin to be seen."""
    scale = 100 / total if total else 0.0
    return [(step, min(step.started * scale, 99.6), max(step.seconds * scale, 0.4)) for step in steps]


def _scores(report: RehearsalReport) -> list[tuple[str, str]]:
    measured = report.evaluation.get("metrics", {})
    return [(_NAMES.get(name, _title(name)), share(entry.get("value"))) for name, entry in measured.items()]


def _by_type(rows: Sequence[CoverageRow]) -> list[ResourceType]:
    types: dict[str, list[CoverageRow]] = {}
    for row in rows:
        types.setdefault(row.type, []).append(row)
    grouped = [
        ResourceType(
            type=type_,
            counts=Counter(row.status for row in members),
            notes=tuple(dict.fromkeys(row.note for row in members if row.note)),
            names=tuple(row.logical_id for row in members),
        )
        for type_, members in types.items()
    ]
    return sorted(grouped, key=lambda one: ((*_ORDER, one.worst).index(one.worst), one.type))


def _figure(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _title(name: Any) -> str:
    text = str(name).replace("_", " ")
    return text[:1].upper() + text[1:]


@dataclass(frozen=True)
class Thumbnail:
    """A picture as a data URI; `pixelated`: to be enlarged without smoothing."""

    uri: str
    pixelated: bool = False


def thumbnail(image: bytes) -> Thumbnail | None:
    """Return a small copy of `image`, or None for bytes that are no picture."""
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of a decompression bomb
            with Image.open(io.BytesIO(image)) as opened:
                opened.draft("RGB", (_SIDE * 2, _SIDE * 2))
                small = ImageOps.exif_transpose(opened).convert("RGB")
    except Exception:  # Pillow's decoders raise nearly anything for hostile bytes; the answer is the same
        return None
    pixelated = max(small.size) <= _SMALL
    small.thumbnail((_SIDE, _SIDE))
    packed = io.BytesIO()
    small.save(packed, "PNG" if pixelated else "JPEG", quality=82)
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{'png' if pixelated else 'jpeg'};base64,{data}", pixelated)
