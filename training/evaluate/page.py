"""The model's report: one HTML file with everything inside, for whoever decides on the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from training.evaluate import charts as chart
from training.evaluate import plots, scores
from training.evaluate.forms import forms
from training.evaluate.money import cost
from training.evaluate.pictures import Album, Picture, small_figure
from training.split import Split

_PAIRS, _OF_PAIR = 8, 2  # pairs with pictures, pictures of each of their classes
_MISTAKES = 12
_ROWS, _MORE = 20, 500  # classes shown at once; folded below them


@dataclass(frozen=True)
class Pair:
    """A mistake that is made often: what it is and what it is taken for, with pictures of each."""

    true: str
    predicted: str
    count: int
    mistaken: list[Picture]
    typical: list[Picture]


@dataclass(frozen=True)
class Mistake:
    true: str
    predicted: str
    confidence: float
    picture: Picture


def render(
    report: Mapping[str, Any], answers: scores.Answers, split: Split, record: Mapping[str, Any], confusion: Path
) -> str:
    """Return the page; whatever came from outside (names of classes above all) is escaped by the template.

    `report` is evaluation.json's content, `record` model.json's, `confusion` the drawn matrix.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=share, duration=_duration, title=_title, value=_value, label=_label)
    album = Album(split)
    rows = sorted(report["per_class"], key=lambda row: (row["support"] == 0, row["recall"], row["f1"]))
    trials = record.get("trials") or []
    return environment.get_template("report.html.j2").render(
        report=report,
        metrics={name: entry["value"] for name, entry in report["metrics"].items()},
        interval=scores.interval(int(answers.right.sum()), len(answers)),
        record=record,
        trained_on=record.get("trained_on") or {},
        cost=cost(record.get("trained_on") or {}),
        curves=plots.curves(record.get("history") or [], trials),
        trials=plots.best(trials),
        tried=len(trials),
        calibration=plots.calibration(answers),
        coverage=plots.coverage(answers),
        forms=forms(record.get("exports") or {}, report["precisions"]),
        mistakes=_mistakes(answers, split, album),
        pairs=_pairs(answers, split, album),
        rows=(rows[:_ROWS], rows[_ROWS : _ROWS + _MORE], max(0, len(rows) - _ROWS - _MORE)),
        confusion=small_figure(confusion),
        width=chart.WIDTH,
        height=chart.HEIGHT,
    )


def share(value: float | None) -> str:
    """Return a fraction as a percentage that never rounds to the perfect 100."""
    if value is None:
        return "none"
    text = f"{100 * value:.1f}"
    return ("99.9" if text == "100.0" and value < 1 else text) + "\N{NO-BREAK SPACE}%"


def _mistakes(answers: scores.Answers, split: Split, album: Album) -> list[Mistake]:
    wrong = np.flatnonzero(~answers.right)
    worst = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:_MISTAKES]
    return [
        Mistake(
            split.classes[int(answers.labels[index])],
            split.classes[int(answers.predicted[index])],
            float(answers.confidence[index]),
            album.picture(int(index)),
        )
        for index in worst
    ]


def _pairs(answers: scores.Answers, split: Split, album: Album) -> list[Pair]:
    pairs = []
    for true, predicted, count in scores.confusions(answers)[:_PAIRS]:
        mistaken = np.flatnonzero((answers.labels == true) & (answers.predicted == predicted))
        seen = np.flatnonzero(answers.labels == predicted)
        typical = seen[np.argsort(~answers.right[seen], kind="stable")]  # those that it recognizes first
        pictures = [[album.picture(int(index)) for index in some[:_OF_PAIR]] for some in (mistaken, typical)]
        pairs.append(Pair(split.classes[true], split.classes[predicted], count, *pictures))
    return pairs


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _title(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _label(name: str) -> str:
    """Return a class's name as people read it."""
    text = name.replace("_", " ")
    return text if len(text) <= 80 else text[:79] + "…"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
