"""The figures beside evaluation.json; their size has a bound, however many classes there are."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from training.calibration import Floats, Labels, calibration
from training.evaluate.scores import Answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = 20  # classes: up to here each cell has its number
MOST = 150  # classes that a matrix shows
_ROWS = 60  # classes that a bar chart shows
INK = "#1f4e79"
_LONGEST = 24  # letters of a class name


def draw(folder: Path, answers: Answers, rows: list[dict[str, Any]]) -> None:
    """Write confusion.png, per_class.png and calibration.png into `folder`; `rows` are evaluation.json's per_class."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")  # a class may be named in any script
        for name, figure in {
            "confusion.png": _confusion(answers, rows),
            "per_class.png": _per_class(rows),
            "calibration.png": _calibration(answers),
        }.items():
            figure.savefig(folder / name, dpi=110)


def shown_classes(rows: list[dict[str, Any]]) -> Labels:
    """Return the numbers of the classes that the matrix shows: all, or those with the lowest recall, in class order."""
    recalls = [row["recall"] if row["support"] else 2.0 for row in rows]
    return np.sort(np.argsort(recalls, kind="stable")[:MOST]).astype(np.int64)


def confusion(answers: Answers, chosen: Labels) -> Labels:
    """Return counts [true class, predicted class] among the classes `chosen`."""
    place = np.full(max(answers.labels.max(), answers.predicted.max(), chosen.max()) + 1, -1)
    place[chosen] = np.arange(len(chosen))
    true, predicted = place[answers.labels], place[answers.predicted]
    inside = (true >= 0) & (predicted >= 0)
    count = len(chosen)
    flat = np.bincount(true[inside] * count + predicted[inside], minlength=count * count)
    return np.asarray(flat.reshape(count, count), np.int64)


def _figure(width: float, height: float) -> Figure:
    """An empty figure, sizes in inches."""
    # On its first import in a home directory matplotlib looks for fonts with a process of its own.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _confusion(answers: Answers, rows: list[dict[str, Any]]) -> Figure:
    chosen = shown_classes(rows)
    matrix, names = confusion(answers, chosen), [_short(rows[number]["class"]) for number in chosen]
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
    which = f"the {count} classes with the lowest recall" if count < len(rows) else "images by true and predicted class"
    figure.suptitle(f"Confusion: {which}", fontsize=11)
    for i, j in np.argwhere(matrix) if count <= FEW else ():
        axes.text(j, i, str(matrix[i, j]), ha="center", va="center", color="white" if shares[i, j] > 0.5 else "black")
    return figure


def _per_class(rows: list[dict[str, Any]]) -> Figure:
    weakest = sorted(rows, key=lambda row: row["f1"])[:_ROWS]
    drawn = weakest[::-1]  # the weakest at the top
    figure = _figure(7, max(2.5, 1.2 + 0.2 * len(drawn)))
    axes = figure.add_subplot()
    axes.barh(range(len(drawn)), [row["f1"] for row in drawn], color=INK, height=0.7)
    axes.set_yticks(range(len(drawn)), [f"{_short(row['class'])} ({row['support']})" for row in drawn], fontsize=8)
    axes.set_ylim(-0.6, len(drawn) - 0.4)
    axes.set_xlim(0, 1)
    axes.set_xlabel("F1")
    only = f", the {len(drawn)} weakest of {len(rows)}" if len(drawn) < len(rows) else ", weakest first"
    axes.set_title(f"F1 by class (test images){only}")
    axes.grid(axis="x", alpha=0.3)
    return figure


def _calibration(answers: Answers) -> Figure:
    figure = _figure(5.5, 5.5)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="confidence = accuracy")
    series: tuple[tuple[str, Floats, str], ...] = (
        ("without the temperature", answers.uncalibrated, "#b4541a"),
        ("with the temperature", answers.confidence, INK),
    )
    for name, confidence, colour in series:
        bins = calibration(confidence, answers.right)
        places = [one.confidence for one in bins], [one.accuracy for one in bins]
        axes.plot(*places, color=colour)
        axes.scatter(*places, [20 + 400 * one.share for one in bins], color=colour, label=name)
    axes.set_xlim(0, 1.05)
    axes.set_ylim(-0.02, 1.05)
    axes.set_xlabel("confidence of the answer")
    axes.set_ylabel("share that is right")
    axes.set_title("Calibration (area of a dot: share of the answers)")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    return figure


def _short(name: str) -> str:
    name = name.encode("utf-8", "replace").decode()  # a folder's name may hold bytes that are no letters
    name = name.replace("_", " ").replace("$", r"\$")  # matplotlib would read formulas
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
