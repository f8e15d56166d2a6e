"""The report's content, as the rehearsal hands it over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from kennel.compare.records import interval
from kennel.console import Step
from kennel.rehearsal.interfaces import CoverageRow


@dataclass(frozen=True)
class Prediction:
    """One answer of the Lambda. `top` are (label, probability), best first; `truth` is None where nobody knows it.

    `image` is the picture itself, of any size and kind, or empty; `error` is what was answered in place of a label;
    `unsure`: the model is less sure than its threshold asks for, so the answer was "none of these".
    """

    file: str
    label: str
    probability: float
    top: Sequence[tuple[str, float]] = ()
    truth: str | None = None
    image: bytes = b""
    error: str = ""
    unsure: bool = False

    @property
    def right(self) -> bool | None:
        return None if self.truth is None else self.truth == self.label


@dataclass(frozen=True, kw_only=True)
class RehearsalReport:
    """All that is known at the end, be it the good one or not; whatever was never reached stays empty.

    `evaluation` and `prepare` are evaluation.json and prepare.json; `epochs` are the metric lines, one mapping each
    (`epoch`, `train_loss`, `valid_loss`, `valid_accuracy`, `images_per_second`); `model_page` is the model's own
    report; `trials` are one mapping each (`trial`, the objective, `chosen`), of the tuning job or of the one job that
    tries many heads; `overrides` are pipeline parameters that were laid over the deployed ones; `environment` are the
    variables under which other clients reach what was kept up.
    """

    stage: str
    started: datetime
    data: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    steps: Sequence[Step] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: Sequence[Mapping[str, float]] = ()
    trials: Sequence[Mapping[str, Any]] = ()
    prepare: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    model_page: Path | None = None
    predictions: Sequence[Prediction] = ()
    coverage: Sequence[CoverageRow] = ()
    denied: Sequence[str] = ()
    overrides: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""

    @property
    def test_accuracy(self) -> float | None:
        """The share of the test split that the exported model gets right, from 0 to 1."""
        value = self.evaluation.get("metrics", {}).get("accuracy", {}).get("value")
        return None if value is None else float(value)

    @property
    def test_interval(self) -> tuple[float, float] | None:
        """The 95 % interval of that share."""
        return None if self.test_accuracy is None else interval(self.test_accuracy, self.evaluation["test_samples"])

    @property
    def seconds(self) -> float:
        return max((step.started + step.seconds for step in self.steps), default=0.0)
