"""Pictures for people who judge a model, legible for ten classes and for hundreds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.evaluate.scores import CalibrationBin, Counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 20  # classes: up to here each cell has its number
INK = "#1f4e79"
_LONGEST = 24  # letters of a class name


def draw(folder: Path, matrix: Counts, rows: list[dict[str, Any]], bins: list[CalibrationBin]) -> None:
    """Write confusion.png, per_class.png and calibration.png into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [_short(row["class"]) for row in rows]
    for name, figure in {
        "confusion.png": _confusion(matrix, names),
        "per_class.png": _per_class(rows, names),
        "calibration.png": _calibration(bins),
    }.items():
        figure.savefig(folder / name, dpi=110)


def _figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    # On its first import in a home directory matplotlib looks for fonts with a process of its own.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _confusion(matrix: Counts, names: list[str]) -> Figure:
    count = len(names)
    side = float(np.clip(3 + 0.42 * count, 5.5, 26))
    figure = _figure(side, side)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)  # of each true class
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = float(np.clip(side * 72 / count * 0.5, 5, 10))
    axes.set_xticks(range(count), names, rotation=90, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("Confusion: images by true and predicted class")
    for i, j in np.argwhere(matrix) if count <= FEW else ():
        axes.text(j, i, str(matrix[i, j]), ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black")
    return figure


def _per_class(rows: list[dict[str, Any]], names: list[str]) -> Figure:
    order = sorted(range(len(rows)), key=lambda number: -rows[number]["f1"])  # the weakest at the top
    figure = _figure(7, max(2.5, 1.2 + 0.2 * len(rows)))
    axes = figure.add_subplot()
    axes.barh(range(len(rows)), [rows[number]["f1"] for number in order], color=INK, height=0.7)
    labels = [f"{names[number]} ({rows[number]['support']})" for number in order]
    axes.set_yticks(range(len(rows)), labels, fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1")
    axes.set_title("F1 by class (test images), weakest first")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _calibration(bins: list[CalibrationBin]) -> Figure:
    figure = _figure(5.5, 5.5)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="confidence = accuracy")
    axes.plot([one.confidence for one in bins], [one.accuracy for one in bins], color=INK)
    sizes = [20 + 400 * one.share for one in bins]
    axes.scatter([one.confidence for one in bins], [one.accuracy for one in bins], sizes, color=INK, label="answers")
    axes.set_xlim(0, 1.05)
    axes.set_ylim(-0.02, 1.05)
    axes.set_xlabel("confidence of the answer")
    axes.set_ylabel("share that is right")
    axes.set_title("Calibration (area of a dot: share of the answers)")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # matplotlib would read formulas
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
