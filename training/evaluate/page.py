"""The model's report: one HTML file, pictures and charts inside, for the person who decides on the model."""

import base64
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from training.evaluate import charts, scores
from training.split import Split
from training.transform import open_rgb

_PAIRS, _OF_PAIR = 8, 2  # pairs of confused classes with pictures, pictures of each class
_MISTAKES = 12
_TRIALS = 10  # listed
_ROWS, _MORE = 20, 500  # classes shown at once; folded below them
_SIDE = 176  # pixels of a picture's longer side: about twice what it takes on the page, for dense screens
_SMALL = 64  # pixels: smaller pictures are shown with sharp pixels
_BUDGET = 1_500_000  # characters of all pictures together
_PRICES = Path(__file__).resolve().parents[1] / "prices.json"
_FORMS = {"onnx": "float32, ONNX", "pt2": "float32, torch.export"}


@dataclass(frozen=True)
class Picture:
    """A thumbnail as a data URI, which is empty for a picture that cannot be shown."""

    name: str
    uri: str = ""
    pixelated: bool = False


@dataclass
class Thumbnails:
    """Thumbnails of a split's images, each made once, as long as all of them fit into `budget` characters."""

    split: Split
    budget: int = _BUDGET
    _made: dict[int, Picture] = field(default_factory=dict, init=False)

    def picture(self, index: int) -> Picture:
        """Return image `index` as a thumbnail, without a picture if it cannot be decoded or the budget is spent."""
        if index not in self._made:
            made = self._make(index)
            self._made[index] = made if len(made.uri) <= self.budget else Picture(made.name)
            self.budget -= len(self._made[index].uri)
        return self._made[index]

    def _make(self, index: int) -> Picture:
        name = self.split.samples[index].name
        try:
            thumbnail = open_rgb(self.split.read(index))
        except OSError:
            return Picture(name)
        pixelated = max(thumbnail.size) <= _SMALL
        return Picture(name, data_uri(thumbnail, quality=90 if pixelated else 78), pixelated)


def data_uri(image: Image.Image, quality: int = 78) -> str:
    """Return a thumbnail of the image, which is reduced in place, as a data URI."""
    image.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


@dataclass(frozen=True)
class Mistake:
    """One image that got the wrong class."""

    true: str
    predicted: str
    confidence: float
    picture: Picture


@dataclass(frozen=True)
class Pair:
    """A class that is often taken for another: pictures of such mistakes, and of the class that they are taken for."""

    true: str
    predicted: str
    count: int
    mistaken: list[Picture]
    typical: list[Picture]


@dataclass(frozen=True)
class Form:
    """A precision or file format in which the model may be served; None for what nobody measured.

    `accuracy` and the lower end of its interval are of the test split; `agreement` and `change` compare the answers on
    validation images with those of the trained network in float32.
    """

    name: str
    accuracy: float | None
    lower: float | None
    agreement: float | None
    change: float | None
    offered: str


def render(report: Mapping[str, Any], answers: scores.Answers, split: Split, record: Mapping[str, Any]) -> str:
    """Return the page. The template escapes whatever came from outside, names of classes above all.

    `report` is evaluation.json's content, `record` model.json's; `answers` are float32's for the images of `split`.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=share, duration=duration, title=_title, value=_value, label=_label)
    pictures = Thumbnails(split)
    classes = report["per_class"]
    rows = sorted(classes, key=lambda row: (row["support"] == 0, row["recall"], row["f1"]))
    recalls = [row["recall"] if row["support"] else math.nan for row in classes]
    trials = record.get("trials") or []
    return environment.get_template("report.html.j2").render(
        report=report,
        metrics={name: entry["value"] for name, entry in report["metrics"].items()},
        interval=scores.interval(int(answers.right.sum()), len(answers)),
        record=record,
        trained_on=_with_phases(record.get("trained_on") or {}),
        cost=cost(record.get("trained_on") or {}),
        charts=charts.draw(answers, [row["class"] for row in classes], recalls, record),
        wide=len(classes) > charts.FEW,
        trials=sorted(trials, key=_rank)[:_TRIALS],
        tried=len(trials),
        forms=forms(record.get("exports") or {}, report["precisions"]),
        mistakes=_mistakes(answers, split, pictures),
        pairs=_pairs(answers, split, pictures),
        rows=(rows[:_ROWS], rows[_ROWS : _ROWS + _MORE], max(0, len(rows) - _ROWS - _MORE)),
    )


def _rank(trial: Mapping[str, Any]) -> float:
    """Return the sort key that puts the best trial first and those that diverged last."""
    return math.inf if trial.get("loss") is None else float(trial["loss"])


def _mistakes(answers: scores.Answers, split: Split, pictures: Thumbnails) -> list[Mistake]:
    """Return the mistakes of the highest confidence."""
    wrong = np.flatnonzero(~answers.right)
    surest = wrong[np.argsort(-answers.confidence[wrong], kind="stable")][:_MISTAKES]
    return [
        Mistake(
            split.classes[int(answers.labels[index])],
            split.classes[int(answers.predicted[index])],
            float(answers.confidence[index]),
            pictures.picture(int(index)),
        )
        for index in surest
    ]


def _pairs(answers: scores.Answers, split: Split, pictures: Thumbnails) -> list[Pair]:
    """Return the most frequent confusions."""
    pairs = []
    for true, predicted, count in scores.confusions(answers)[:_PAIRS]:
        mistaken = np.flatnonzero((answers.labels == true) & (answers.predicted == predicted))
        seen = np.flatnonzero(answers.labels == predicted)
        typical = seen[np.argsort(~answers.right[seen], kind="stable")]  # recognized ones first
        shown = [[pictures.picture(int(index)) for index in some[:_OF_PAIR]] for some in (mistaken, typical)]
        pairs.append(Pair(split.classes[true], split.classes[predicted], count, *shown))
    return pairs


def forms(exports: Mapping[str, Mapping[str, Any]], precisions: Mapping[str, Mapping[str, float]]) -> list[Form]:
    """Return a row for each form: `exports` is model.json's (empty in an old one), `precisions` evaluation.json's."""
    return [
        Form(
            _FORMS.get(name, name),
            precisions.get(name, {}).get("accuracy"),
            precisions.get(name, {}).get("accuracy_lower"),
            exports.get(name, {}).get("agreement"),
            exports.get(name, {}).get("largest_change"),
            _offered(name, exports.get(name, {}), name in precisions),
        )
        for name in dict.fromkeys(["float32", "bfloat16", *exports])
    ]


def _offered(name: str, export: Mapping[str, Any], measured: bool) -> str:
    if name == "bfloat16":
        return "on processors with bfloat16" + ("" if measured else "; not measured, this one has none")
    price = ""
    if "loss" in export:
        low, high = export["loss_interval"]
        price = f"; accuracy lost on validation: {share(export['loss'])} ({share(low)} to {share(high)})"
    return ("yes" if export.get("accepted", name == "float32") else f"no: {export.get('reason', 'unknown')}") + price


def _with_phases(trained_on: Mapping[str, Any]) -> dict[str, Any]:
    """Return it with the seconds in words, those of each phase in brackets."""
    shown = {name: value for name, value in trained_on.items() if name != "phases"}
    if phases := trained_on.get("phases"):
        shown["phases"] = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in phases.items())
    return shown


def cost(trained_on: Mapping[str, Any], table: Path = _PRICES) -> tuple[str, str]:
    """Return what the training run cost and a sentence about it; the amount may be "no charge" or "unknown"."""
    instance, seconds = trained_on.get("instance_type"), trained_on.get("seconds")
    if not instance:
        return "no charge", "The run names no instance type: it was not on AWS."
    prices = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
    price = prices.get("per_hour", {}).get(instance)
    if price is None or seconds is None:
        return "unknown", f"The table of prices (training/prices.json) has no price for {instance}."
    amount = price * seconds * trained_on.get("instances", 1) / 3600
    text = f"${amount:.2f}" if amount >= 0.1 else f"${amount:.4f}"
    return text, (
        f"That is the program's own time at the on-demand price of {prices['region']} on {prices['date']}, "
        f"{price:g} {prices['currency']} an hour. Starting the instance is charged too; spot instances cost less."
    )


def share(value: float | None) -> str:
    """Return a fraction as a percentage with one decimal; only 1 is 100.0 %."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{100 * value:.1f}"
    return ("99.9" if text == "100.0" and value < 1 else text) + "\N{NO-BREAK SPACE}%"


def duration(seconds: float) -> str:
    """Return seconds as 12.3 s, 4 min 05 s or 2 h 07 min, rounded to what is shown."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def _title(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _label(name: str) -> str:
    """Return a class's name as people read it."""
    text = name.replace("_", " ")
    return text if len(text) <= 80 else text[:79] + "…"


def _value(value: Any) -> str:
    if value is None or value == "":
        return "none"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
