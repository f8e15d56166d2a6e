"""What the report draws of a model: how it learned, how sure it is, and what a threshold would do."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.calibration import Floats
from training.calibration import calibration as bins_of
from training.evaluate import charts as chart
from training.evaluate import scores

_TRIALS = 10  # listed


def curves(history: Sequence[Mapping[str, float]], trials: Sequence[Mapping[str, Any]]) -> list[chart.Chart]:
    def points(key: str) -> list[chart.Point]:
        return [
            (float(epoch.get("epoch", number)), float(epoch[key]))
            for number, epoch in enumerate(history, 1)
            if key in epoch
        ]

    accuracies = {"train": points("train_accuracy"), "valid": points("valid_accuracy")}
    losses = {"train": points("train_loss"), "valid": points("valid_loss")}
    drawn = [
        chart.curves("Accuracy on the validation split", accuracies, x_label="epoch", percent=True),
        chart.curves("Loss (nats)", losses, x_label="epoch"),
    ]
    if reached := np.maximum.accumulate([_accuracy(trial) for trial in trials]).tolist():
        line = [(float(number), value) for number, value in enumerate(reached, 1)]
        drawn.append(chart.curves("Best trial so far, on validation", {"best": line}, x_label="trial", percent=True))
    return [one for one in drawn if one]


def best(trials: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the best trials, best first; those that came to no end are the worst."""
    return sorted(trials, key=lambda trial: -_accuracy(trial))[:_TRIALS]


def _accuracy(trial: Mapping[str, Any]) -> float:
    value = trial.get("accuracy")
    return -math.inf if value is None else float(value)


def calibration(answers: scores.Answers) -> chart.Chart:
    series: dict[str, list[chart.Point]] = {}
    sizes: dict[str, list[float]] = {}
    for name, confidence in (("before", answers.uncalibrated), ("after", answers.confidence)):
        bins = bins_of(confidence, answers.right)
        series[name] = [(one.confidence, one.accuracy) for one in bins]
        sizes[name] = [one.share for one in bins]
    title = "Share that is right, by the confidence of the answer"
    return chart.shares(title, series, x_label="confidence", sizes=sizes, diagonal=True)


def coverage(answers: scores.Answers) -> chart.Chart:
    """Precision against coverage: what a higher or lower threshold would give on the test split."""
    hits = answers.right[np.argsort(-answers.confidence, kind="stable")]
    answered = np.arange(1, len(hits) + 1)
    precision: Floats = hits.cumsum() / answered
    picked = np.unique(np.linspace(0, len(hits) - 1, 100).round().astype(int))
    points = [(float(answered[i] / len(hits)), float(precision[i])) for i in picked]
    return chart.shares("Share of the answers that is right", {"right": points}, x_label="share that is answered")
