"""What a rehearsal has found out so far; it is written at the end, be it the good one or not."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kennel.console import Display
from kennel.rehearsal.options import Options
from kennel.rehearsal.report import CoverageRow, Prediction, RehearsalReport, write


@dataclass
class Record:
    options: Options
    display: Display
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    epochs: list[dict[str, Any]] = field(default_factory=list)
    trials: list[dict[str, Any]] = field(default_factory=list)
    prepare: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    model_page: Path | None = None
    predictions: list[Prediction] = field(default_factory=list)
    coverage: list[CoverageRow] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    overrides: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    failure: str = ""

    def write(self) -> Path:
        """Write rehearsal.json and report.html into `--out`; return the latter's path."""
        return write(self._report(), self.options.out)

    def accuracy(self) -> str:
        """How good the model is, in a few words; empty where nothing was measured."""
        report = self._report()
        if report.test_accuracy is None or report.test_interval is None:
            return ""
        low, high = report.test_interval
        images = self.evaluation["test_samples"]
        return f"accuracy {report.test_accuracy:.1%} on {images:,} test images (95 % interval {low:.1%} to {high:.1%})"

    def _report(self) -> RehearsalReport:
        return RehearsalReport(
            stage=self.options.stage,
            started=self.started,
            data=str(self.options.data or "handwritten digits (scikit-learn)"),
            machine={"system": platform.platform(), "cores": str(os.cpu_count()), "python": platform.python_version()},
            steps=self.display.steps,
            metrics=self._metrics(),
            epochs=self.epochs,
            trials=self.trials,
            prepare=self.prepare,
            evaluation=self.evaluation,
            model_page=self.model_page,
            predictions=self.predictions,
            coverage=self.coverage,
            denied=self.denied,
            overrides=self.overrides,
            environment=self.environment,
            failure=self.failure,
        )

    def _metrics(self) -> dict[str, float]:
        measured = self.evaluation.get("metrics", {})
        return {name: one["value"] for name, one in measured.items() if one.get("value") is not None}
