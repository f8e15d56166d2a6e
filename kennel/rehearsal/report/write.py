"""Writes the files, each whole or not at all."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kennel.rehearsal.report.model import Prediction, RehearsalReport

MODEL_PAGE = "model.html"


def write(report: RehearsalReport, out: Path) -> Path:
    """Write `out`/rehearsal.json, `out`/report.html and, if there is a model, `out`/model.html; return report.html."""
    from kennel.rehearsal.report.page import render  # Jinja2 and Pillow are wanted at the end only

    out.mkdir(parents=True, exist_ok=True)
    (out / MODEL_PAGE).unlink(missing_ok=True)  # of the model of an earlier rehearsal
    if report.model_page:
        shutil.copyfile(report.model_page, out / MODEL_PAGE)
    _replace(out / "rehearsal.json", json.dumps(as_json(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return _replace(out / "report.html", render(report))


def as_json(report: RehearsalReport) -> dict[str, Any]:
    """Return every metric and timing; numbers that JSON has no word for (nan) become null."""
    whole = {
        "format": 1,
        "stage": report.stage,
        "data": report.data,
        "started": report.started.isoformat(),
        "seconds": report.seconds,
        "failure": report.failure or None,
        "test_accuracy": report.test_accuracy,
        "test_interval": report.test_interval,
        "machine": report.machine,
        "overrides": report.overrides,
        "steps": [asdict(step) for step in report.steps],
        "metrics": report.metrics,
        "epochs": report.epochs,
        "trials": report.trials,
        "prepare": report.prepare,
        "evaluation": report.evaluation,
        "predictions": [_prediction(one) for one in report.predictions],
        "coverage": [asdict(row) for row in report.coverage],
        "denied": report.denied,
    }
    plain: dict[str, Any] = _plain(whole)
    return plain


def _prediction(one: Prediction) -> dict[str, Any]:
    top = [{"label": label, "probability": probability} for label, probability in one.top]
    row = {"file": one.file, "label": one.label, "probability": one.probability, "truth": one.truth, "top": top}
    row["unsure"] = one.unsure
    return {**row, "error": one.error} if one.error else row


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | None) else str(value)


def _replace(path: Path, text: str) -> Path:
    """Write beside and rename: whoever reads meanwhile sees the old file or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8", errors="replace")  # file names may hold what UTF-8 cannot say
    fresh.replace(path)
    return path
