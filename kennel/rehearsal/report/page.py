"""Turns the report into one HTML file that asks nobody for anything: styles and pictures are inside."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kennel.console import Step
from kennel.rehearsal.interfaces import CoverageRow
from kennel.rehearsal.report import pictures
from kennel.rehearsal.report.model import RehearsalReport

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
_ORDER = ("stand-in", "partial", "accepted", "enacted")  # the least real first


@dataclass(frozen=True)
class Held:
    """The resources of one type; `counts` are by status, `notes` without repetition."""

    type: str
    counts: Mapping[str, int]
    notes: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def worst(self) -> str:
        return min(self.counts, key=lambda status: (*_ORDER, status).index(status))


def render(report: RehearsalReport) -> str:
    """Return the page; everything that came from outside is escaped by the template."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=share, duration=duration, title=_title, figure=_figure)
    environment.globals.update(thumbnail=pictures.thumbnail)
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
    """Return a fraction as a percentage that never rounds to the perfect 100."""
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
    scores = [(_NAMES.get(name, _title(name)), share(entry.get("value"))) for name, entry in measured.items()]
    return scores + [(_title(name), _figure(value)) for name, value in report.metrics.items() if name not in measured]


def _by_type(rows: Sequence[CoverageRow]) -> list[Held]:
    types: dict[str, list[CoverageRow]] = {}
    for row in rows:
        types.setdefault(row.type, []).append(row)
    grouped = [
        Held(
            type=type_,
            counts=Counter(row.status for row in members),
            notes=tuple(dict.fromkeys(row.note for row in members if row.note)),
            names=tuple(row.logical_id for row in members),
        )
        for type_, members in types.items()
    ]
    return sorted(grouped, key=lambda held: ((*_ORDER, held.worst).index(held.worst), held.type))


def _figure(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _title(name: Any) -> str:
    text = str(name).replace("_", " ")
    return text[:1].upper() + text[1:]
