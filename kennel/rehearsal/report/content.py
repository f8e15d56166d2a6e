"""The content of a rehearsal's report, and the files it is written to: rehearsal.json, report.html and model.html."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from kennel.compare.records import interval
from kennel.console import Step
from kennel.files import replace_text
from kennel.rehearsal.interfaces import CoverageRow, UnusedPermission

MODEL_PAGE = "model.html"
_NOT_IN_JSON = ("image", "model_page")  # the pages have them


@dataclass(frozen=True)
class Prediction:
    """One answer of the Lambda. `top` are its predictions, best first; `truth` is None where it is not known.

    `image` is the picture itself, of any size and format, or empty; `error` is the answer in place of a label;
    `unsure`: the probability is below the model's threshold, so the answer was "none of these".
    """

    file: str
    label: str
    probability: float
    top: Sequence[Mapping[str, Any]] = ()  # label and probability of each
    truth: str | None = None
    image: bytes = b""
    error: str = ""
    unsure: bool = False

    @property
    def right(self) -> bool | None:
        return None if self.truth is None else self.truth == self.label


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
        """Return the metrics that evaluation.json has a number for."""
        measured = self.evaluation.get("metrics", {})
        return {name: one["value"] for name, one in measured.items() if one.get("value") is not None}

    @property
    def test_accuracy(self) -> float | None:
        """The fraction of the test split that the exported model classifies correctly, 0 to 1."""
        return self.metrics.get("accuracy")

    @property
    def test_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of `test_accuracy`."""
        return None if self.test_accuracy is None else interval(self.test_accuracy, self.evaluation["test_samples"])

    @property
    def seconds(self) -> float:
        return max((step.started + step.seconds for step in self.steps), default=0.0)


def write(report: RehearsalReport, out: Path) -> Path:
    """Write `out`/rehearsal.json, `out`/report.html and, if there is a model, `out`/model.html; return report.html."""
    from kennel.rehearsal.report.page import render  # which imports Jinja2: only at the end

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
