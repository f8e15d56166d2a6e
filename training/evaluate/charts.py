"""The charts of the model's report: matplotlib draws them, and they stand in the page as SVG in the page's colours."""

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from training.calibration import Labels, calibration
from training.evaluate.scores import Answers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEW = 20  # classes: a confusion matrix of up to so many has the number of images in each cell
MOST = 150  # classes that a confusion matrix shows
_WIDTH, _HEIGHT = 420, 260  # CSS pixels of a chart; the page scales it
_LONGEST = 24  # letters of a class name beside the matrix
# The light colours of the page (style.css). In the SVG each becomes the page's variable, so that a dark page has dark
# charts.
_INK, _SOFT, _LINE, _ACCENT, _SECOND = "#1d2421", "#5b6662", "#e2e0d8", "#0b6e63", "#b4541a"
_VARIABLES = {_INK: "--ink", _SOFT: "--soft", _LINE: "--line", _ACCENT: "--accent", _SECOND: "--second"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.parse_math": False,  # a class may have a dollar sign in its name
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: measures the text; the page sets its own
    "font.size": 11,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": _LINE,
    "xtick.labelcolor": _SOFT,
    "ytick.labelcolor": _SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 8,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
}

Series = Mapping[str, Sequence[tuple[float, float]]]


@dataclass(frozen=True)
class Chart:
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Charts:
    """All charts of one report; `curves` is empty for a model whose record has no history."""

    curves: list[Chart]
    calibration: Chart
    coverage: Chart
    confusion: Chart


def draw(answers: Answers, names: Sequence[str], recalls: Sequence[float], record: Mapping[str, Any]) -> Charts:
    """Return the charts of a model; their size is bounded, however many classes, epochs or images there are.

    `names` and `recalls` are those of all classes (NaN where a class has no test image); `record` is model.json's
    content, of which `history` and `trials` are drawn.
    """
    import matplotlib  # on its first import in a home directory it starts a process that looks for fonts

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")  # a class may be named in any script
        return Charts(
            _curves(record.get("history") or [], record.get("trials") or []),
            _calibration(answers),
            _coverage(answers),
            _confusion(answers, names, recalls),
        )


def _curves(history: Sequence[Mapping[str, float]], trials: Sequence[Mapping[str, Any]]) -> list[Chart]:
    """Return accuracy and loss by epoch and the best accuracy by trial, each if it has any finite value."""

    def by_epoch(key: str) -> list[tuple[float, float]]:
        return [(one.get("epoch", number), one[key]) for number, one in enumerate(history, 1) if key in one]

    accuracies = [math.nan if one.get("accuracy") is None else one["accuracy"] for one in trials]  # None: it diverged
    best = np.fmax.accumulate(accuracies).tolist() if accuracies else []
    losses = {"training": by_epoch("train_loss"), "validation": by_epoch("valid_loss")}
    charts = [
        _line_chart("Accuracy on the validation split", {"accuracy": by_epoch("valid_accuracy")}, "epoch", share=True),
        _line_chart("Loss (cross-entropy in nats)", losses, "epoch"),
        _line_chart("Best accuracy of the trials so far", {"best": list(enumerate(best, 1))}, "trial", share=True),
    ]
    return [chart for chart in charts if chart]


def _line_chart(caption: str, series: Series, x_label: str, *, share: bool = False) -> Chart | None:
    """Return lines over whole numbers; shares (0 to 1) are drawn up to 100 %, other values from 0."""
    from matplotlib.ticker import MaxNLocator

    finite = {name: [one for one in points if math.isfinite(one[1])] for name, points in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return None
    axes = _axes()
    for (name, points), (colour, dashes) in zip(finite.items(), _looks(len(finite)), strict=True):
        axes.plot(
            *zip(*points, strict=True), dashes, color=colour, label=name, marker="o", markevery=[-1], clip_on=False
        )
    _finish(axes, x_label, legend=len(finite) > 1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if share:
        _percent(axes.yaxis)
        axes.set_ylim(top=1.0)
    else:
        axes.set_ylim(bottom=min(0.0, axes.dataLim.y0))
    ends = ", ".join(f"{name} ends at {points[-1][1]:.4g}" for name, points in finite.items())
    return _chart(axes, caption, ends)


def _calibration(answers: Answers) -> Chart:
    """Return accuracy by confidence, before and after the temperature; a dot's area is its share of the answers."""
    axes = _axes()
    axes.plot([0, 1], [0, 1], ":", color=_SOFT, linewidth=1.2)
    both = {"before": answers.uncalibrated, "after": answers.confidence}
    for (name, confidence), (colour, dashes) in zip(both.items(), _looks(2), strict=True):
        bins = calibration(confidence, answers.right)
        places = [one.confidence for one in bins], [one.accuracy for one in bins]
        axes.plot(*places, dashes, color=colour, label=name, linewidth=1.2)
        sizes = [12 + 320 * one.share for one in bins]
        axes.scatter(*places, sizes, color=colour, linewidths=0, alpha=0.75, clip_on=False, zorder=3)
    _finish(axes, "confidence of the answer", legend=True)
    _percent(axes.xaxis, axes.yaxis)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return _chart(axes, "Share of the answers that is right, by their confidence")


def _coverage(answers: Answers) -> Chart:
    """Return precision by coverage: what a higher or a lower threshold would do on the test split."""
    hits = answers.right[np.argsort(-answers.confidence, kind="stable")]
    answered = np.arange(1, len(hits) + 1)
    chosen = np.unique(np.linspace(0, len(hits) - 1, 100).round().astype(int))
    axes = _axes()
    axes.plot((answered / len(hits))[chosen], (hits.cumsum() / answered)[chosen], color=_ACCENT, clip_on=False)
    _finish(axes, "share of the images that is answered")
    _percent(axes.xaxis, axes.yaxis)
    axes.set(xlim=(0, 1), ylim=(min(0.9, axes.get_ylim()[0]), 1))
    return _chart(axes, "Share of the answers that is right, if only the surest are given")


def _confusion(answers: Answers, names: Sequence[str], recalls: Sequence[float]) -> Chart:
    """Return the confusion matrix, coloured by each true class's shares."""
    from matplotlib.colors import LinearSegmentedColormap

    chosen = shown_classes(recalls)
    matrix, shown = confusion_matrix(answers, chosen), [_short(names[number]) for number in chosen]
    count = len(chosen)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cell, size = (34, 11) if count <= FEW else (11, 8)  # CSS pixels
    side = 170 + cell * max(count, 5)
    axes = _axes(side, side)
    clear_to_accent = LinearSegmentedColormap.from_list("shares", ["#14907f00", "#14907fff"])
    axes.imshow(shares, cmap=clear_to_accent, vmin=0, vmax=1, interpolation="none")
    axes.set_xticks(range(count), shown, rotation=90, fontsize=size)
    axes.set_yticks(range(count), shown, fontsize=size)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    edges = np.arange(-0.5, count)
    axes.hlines(edges, -0.5, count - 0.5, colors=_LINE, linewidth=0.5)
    axes.vlines(edges, -0.5, count - 0.5, colors=_LINE, linewidth=0.5)
    axes.set(xlabel="predicted class", ylabel="true class")
    for row, column in np.argwhere(matrix) if count <= FEW else ():
        colour = "white" if shares[row, column] > 0.5 else _INK
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour)
    which = f", the {count} classes with the lowest recall" if count < len(names) else ""
    return _chart(axes, f"Confusion matrix{which}", "true classes in rows, predicted ones in columns")


def shown_classes(recalls: Sequence[float]) -> Labels:
    """Return the numbers of the classes in the matrix: all, or those with the lowest recall, in class order."""
    return np.sort(np.argsort(recalls, kind="stable")[:MOST]).astype(np.int64)  # NaN comes last


def confusion_matrix(answers: Answers, chosen: Labels) -> Labels:
    """Return counts [true class, predicted class] among the classes `chosen`, which are in ascending order."""
    inside = np.isin(answers.labels, chosen) & np.isin(answers.predicted, chosen)
    matrix = np.zeros((len(chosen), len(chosen)), np.int64)
    true, predicted = (np.searchsorted(chosen, classes[inside]) for classes in (answers.labels, answers.predicted))
    np.add.at(matrix, (true, predicted), 1)
    return matrix


def _short(name: str) -> str:
    name = name.encode("utf-8", "replace").decode().replace("_", " ")  # a folder's name may hold bytes that are no text
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _axes(width: int = _WIDTH, height: int = _HEIGHT) -> "Axes":
    """Return the axes of a new figure of so many CSS pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained").add_subplot()


def _looks(count: int) -> list[tuple[str, str]]:
    """Return colour and line style of each series; the last one is the one that matters."""
    return [(_SECOND, "--"), (_ACCENT, "-")][-count:]


def _percent(*axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    for one in axis:
        one.set_major_formatter(PercentFormatter(1.0, symbol=" %"))


def _finish(axes: "Axes", x_label: str, *, legend: bool = False) -> None:
    axes.grid(axis="y")
    axes.set_xlabel(x_label)
    if legend:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=2, labelcolor="linecolor")


def _chart(axes: "Axes", caption: str, spoken: str = "") -> Chart:
    """Return the figure as an <svg> element for HTML; a screen reader says the caption and `spoken`."""
    import matplotlib

    stream, figure = io.StringIO(), axes.get_figure(root=True)
    assert figure
    with matplotlib.rc_context({"svg.hashsalt": caption}):  # the same ids each time, and others in each chart
        without = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=without)
    text = stream.getvalue()
    head, _, body = text[text.index("<svg") :].partition(">")
    width, height = re.findall(r'(?:width|height)="([\d.]+)pt"', head)
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL)  # would style the page
    body = re.sub(r' id="[\w.]+_\d+"', "", body)  # the same in each chart, and referred to by none
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    label = escape(f"{caption}: {spoken}" if spoken else caption)
    opening = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{label}">'
    return Chart(caption, Markup(opening + body))
