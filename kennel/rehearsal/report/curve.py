"""Geometry of the training curves; the template draws it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 72, 14, 28


@dataclass(frozen=True)
class Line:
    """`points` is an SVG point list; the label stands at (x, y), where the line ends."""

    name: str
    points: str
    x: float
    y: float
    label_y: float
    last: float


@dataclass(frozen=True)
class Chart:
    """`across` and `up` are ticks: (position, text)."""

    title: str
    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    bottom: float = HEIGHT - _BOTTOM


def chart(
    title: str, epochs: Sequence[Mapping[str, float]], names: Mapping[str, str], *, top: float = 0
) -> Chart | None:
    """Chart the metrics `names` (key -> label) over the epochs; None where there is nothing to draw.

    `top` 0 lets the highest value decide. Epochs without a finite value leave a gap in the data, not in the line.
    """
    series = {label: _finite(epochs, key) for key, label in names.items()}
    series = {label: points for label, points in series.items() if points}
    if not series:
        return None
    numbers = [x for points in series.values() for x, _ in points]
    values = [y for points in series.values() for _, y in points]
    ticks = _ticks(min(values) if top else 0, top or max(values))
    place = _Place(min(numbers), max(numbers), ticks[0], ticks[-1])
    lines = [_line(label, points, place) for label, points in series.items()]
    across = tuple((place.x(number), f"{number:g}") for number in _whole_ticks(min(numbers), max(numbers)))
    return Chart(title, _apart(lines), across, tuple((place.y(tick), _text(tick, percent=bool(top))) for tick in ticks))


@dataclass(frozen=True)
class _Place:
    first: float
    last: float
    low: float
    high: float

    def x(self, epoch: float) -> float:
        width = WIDTH - _LEFT - _RIGHT
        return round(
            _LEFT + width * ((epoch - self.first) / (self.last - self.first) if self.last > self.first else 0.5), 1
        )

    def y(self, value: float) -> float:
        height = HEIGHT - _TOP - _BOTTOM
        return round(_TOP + height * (1 - (value - self.low) / (self.high - self.low)), 1)


def _finite(epochs: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    pairs = [(float(epoch.get("epoch", number)), epoch.get(key)) for number, epoch in enumerate(epochs, 1)]
    return [(number, float(value)) for number, value in pairs if value is not None and math.isfinite(value)]


def _line(name: str, points: list[tuple[float, float]], place: _Place) -> Line:
    drawn = " ".join(f"{place.x(number)},{place.y(value)}" for number, value in points)
    number, value = points[-1]
    return Line(name, drawn, place.x(number), place.y(value), place.y(value), value)


def _apart(lines: list[Line]) -> tuple[Line, ...]:
    """Move labels that would lie on each other 14 pixels apart."""
    moved: list[Line] = []
    for line in sorted(lines, key=lambda line: line.y):
        least = moved[-1].label_y + 14 if moved else _TOP
        moved.append(Line(line.name, line.points, line.x, line.y, max(line.label_y, least), line.last))
    return tuple(sorted(moved, key=lambda line: [one.name for one in lines].index(line.name)))


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that hold `low` and `high` between them."""
    span = max(high - low, 1e-6)
    step = 10 ** math.floor(math.log10(span))
    step = next(step * factor for factor in (0.2, 0.25, 0.5, 1, 2, 5) if span / (step * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]


def _whole_ticks(first: float, last: float) -> list[int]:
    step = max(1, math.ceil((last - first) / 7))
    return list(range(math.ceil(first), math.floor(last) + 1, step))


def _text(value: float, *, percent: bool) -> str:
    return f"{100 * value:.4g} %" if percent else f"{value:.4g}"
