"""The report of a rehearsal: rehearsal.json for programs, report.html for people, which loads nothing else."""

import base64
import io
import json
import math
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from kennel.compare.records import interval
from kennel.console import Step
from kennel.files import replace_text
from kennel.invoke import upright
from kennel.rehearsal.interfaces import CoverageRow, UnusedPermission

MODEL_PAGE = "model.html"
_NOT_IN_JSON = ("image", "model_page")  # the pages have them
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
_FOREIGN = 24  # pictures of no class that the page shows
_SMALL = 64  # pixels up to which a picture is enlarged without smoothing
_ORDER = ("stand-in", "partial", "accepted", "enacted")  # the least faithful first


@dataclass(frozen=True)
class Prediction:
    """One answer of the Lambda. `top` are its predictions, best first; `truth` is None where it is not known.

    `image` is the picture itself, of any size and format, or empty; `error` is the answer in place of a label.
    `answer` is the Lambda's verdict: class, none_of_these or not_sure. `foreign`: the picture shows no class of the
    model.
    """

    file: str
    label: str
    probability: float
    top: Sequence[Mapping[str, Any]] = ()  # label and probability of each
    truth: str | None = None
    image: bytes = b""
    error: str = ""
    answer: str = "class"
    foreign: bool = False

    @property
    def verdict(self) -> str:
        """Return right or wrong, or none_of_these or not_sure; empty where the truth or an answer is missing.

        An answer without a class is neither right nor wrong, but for a picture that shows none of the classes.
        """
        if self.error or (self.truth is None and not self.foreign):
            return ""
        if self.foreign:
            return "right" if self.answer == "none_of_these" else "not_sure" if self.answer == "not_sure" else "wrong"
        return self.answer if self.answer != "class" else "right" if self.truth == self.label else "wrong"


def verdicts(predictions: Iterable[Prediction]) -> Counter[str]:
    """Return how many answers of each verdict there are, of those that can be judged and show one of the classes."""
    found = Counter(one.verdict for one in predictions if not one.foreign)
    del found[""]
    return found


def refused(predictions: Iterable[Prediction]) -> str:
    """Return how many of the pictures that show none of the classes were refused, in words; empty without any."""
    found = Counter(one.answer for one in predictions if one.foreign and not one.error)
    if not found.total():
        return ""
    unsure = f", {found['not_sure']} 'not sure'" if found["not_sure"] else ""
    return f"{found['none_of_these']} of {found.total()} pictures of no class 'none of these'{unsure}"


@dataclass(kw_only=True)
class RehearsalReport:
    """All that a rehearsal has found out so far; it is written after a failure too, and what was not reached is empty.

    `evaluation` and `prepare` are evaluation.json and prepare.json; `epochs` are the metric lines, one mapping each
    (`epoch`, `train_loss`, `valid_loss`, `valid_accuracy`, `images_per_second`); `model_page` is the model's own
    report; `trials` are one mapping each (`trial`, the objective, `chosen`), of the tuning job or of the one job that
    tries many heads; `overrides` are the pipeline parameters that differ from the deployed defaults.
    """

    stage: str
    started: datetime
    data: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[Step] = ()
    epochs: Sequence[Mapping[str, float]] = ()
    trials: Sequence[Mapping[str, Any]] = ()
    prepare: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    model_page: Path | None = None
    predictions: list[Prediction] = field(default_factory=list)
    coverage: Sequence[CoverageRow] = ()
    denied: list[str] = field(default_factory=list)
    unused: list[UnusedPermission] = field(default_factory=list)
    overrides: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""

    @property
    def metrics(self) -> dict[str, float]:
        measured = self.evaluation.get("metrics", {})
        return {name: one["value"] for name, one in measured.items() if one.get("value") is not None}

    @property
    def test_accuracy(self) -> float | None:
        """The fraction of the test split that the exported model classifies correctly, 0 to 1."""
        return self.metrics.get("accuracy")

    @property
    def test_interval(self) -> tuple[float, float] | None:
        return None if self.test_accuracy is None else interval(self.test_accuracy, self.evaluation["test_samples"])

    @property
    def seconds(self) -> float:
        return max((step.started + step.seconds for step in self.steps), default=0.0)


def write(report: RehearsalReport, out: Path) -> Path:
    """Write `out`/rehearsal.json, `out`/report.html and, if there is a model, `out`/model.html; return report.html."""
    out.mkdir(parents=True, exist_ok=True)
    (out / MODEL_PAGE).unlink(missing_ok=True)  # from an earlier rehearsal
    if report.model_page:
        shutil.copyfile(report.model_page, out / MODEL_PAGE)
    replace_text(
        out / "rehearsal.json", json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
    page = out / "report.html"
    replace_text(page, render(report))
    return page


def as_json(report: RehearsalReport) -> dict[str, Any]:
    """Return the content of rehearsal.json; numbers that JSON cannot express (nan) become null."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if name not in _NOT_IN_JSON}

    whole = {"format": 1, **asdict(report, dict_factory=members), "started": report.started.isoformat()}
    whole["failure"] = report.failure or None
    for name in ("seconds", "test_accuracy", "test_interval", "metrics"):
        whole[name] = getattr(report, name)
    plain: dict[str, Any] = _plain(whole)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | None) else str(value)


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
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only at the end: that takes a while

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=share, duration=duration, title=_title, figure=_figure)
    environment.globals.update(thumbnail=thumbnail)
    return environment.get_template("report.html.j2").render(
        report=report,
        verdict=_verdict(report),
        bars=_bars(report.steps, report.seconds),
        scores=_scores(report),
        coverage=_by_type(report.coverage),
        judged=verdicts(report.predictions),
        refused=refused(report.predictions),
        shown=_shown(report.predictions),
        broken=sum(bool(one.error) for one in report.predictions),
    )


def _shown(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the answers that the page shows: of many pictures of no class those that were taken for one come first."""
    foreign = [one for one in predictions if one.foreign]
    wrong_first = sorted(foreign, key=lambda one: one.answer != "class")[:_FOREIGN]
    return [one for one in predictions if not one.foreign] + wrong_first


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
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Pillow only warns of a decompression bomb
            with Image.open(io.BytesIO(image)) as opened:
                opened.draft("RGB", (_SIDE * 2, _SIDE * 2))
                small = upright(opened)
    except Exception:  # Pillow's decoders raise nearly anything for hostile bytes; the answer is the same
        return None
    pixelated = max(small.size) <= _SMALL
    small.thumbnail((_SIDE, _SIDE))
    packed = io.BytesIO()
    small.save(packed, "PNG" if pixelated else "JPEG", quality=82)
    data = base64.b64encode(packed.getvalue()).decode("ascii")
    return Thumbnail(f"data:image/{'png' if pixelated else 'jpeg'};base64,{data}", pixelated)
