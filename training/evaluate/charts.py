"""Geometry of a line chart; the template draws it as SVG, in the page's own colours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

WIDTH, HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 78, 14, 44
_MOST = 400  # points of a line: more are not seen

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """`points` is an SVG point list; `dots` are (x, y, radius); the label stands beside the last point."""

    name: str
    points: str
    dots: tuple[tuple[float, float, float], ...]
    x: float
    y: float
    label_y: float
    last: float


@dataclass(frozen=True)
class Chart:
    """`across` and `up` are ticks: (position, text); `diagonal` is an SVG point list or empty."""

    title: str
    x_label: str
    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    diagonal: str = ""
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    bottom: float = HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Axis:
    """A range of values, from `low` to `high`, over a range of pixels."""

    low: float
    high: float
    start: float
    end: float
    percent: bool = False

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + (self.end - self.start) * share, 1)

    def text(self, value: float) -> str:
        return f"{100 * value:.4g} %" if self.percent else f"{value:.4g}"


def curves(title: str, series: Mapping[str, Sequence[Point]], *, x_label: str, percent: bool = False) -> Chart | None:
    """Chart lines over whole numbers (epochs, trials); None where there is no finite point.

    Of shares (`percent`) the chart ends at 100 % and begins where they do; other values begin at 0.
    """
    finite = {name: _thin([point for point in points if math.isfinite(point[1])]) for name, points in series.items()}
    finite = {name: points for name, points in finite.items() if points}
    if not finite:
        return None
    numbers = [x for points in finite.values() for x, _ in points]
    values = [y for points in finite.values() for _, y in points]
    ticks = _ticks(min(values) if percent else min(0.0, *values), 1.0 if percent else max(values))
    up = Axis(ticks[0], ticks[-1], HEIGHT - _BOTTOM, _TOP, percent)
    across = Axis(min(numbers), max(numbers), _LEFT, WIDTH - _RIGHT)
    lines = [_line(name, points, across, up, ()) for name, points in finite.items()]
    step = max(1, math.ceil((across.high - across.low) / 7))
    marks = range(math.ceil(across.low), math.floor(across.high) + 1, step)
    return Chart(title, x_label, _apart(lines), _marks(across, marks), _marks(up, ticks))


def shares(
    title: str,
    series: Mapping[str, Sequence[Point]],
    *,
    x_label: str,
    sizes: Mapping[str, Sequence[float]] | None = None,
    diagonal: bool = False,
) -> Chart:
    """Chart lines of shares (0 to 1) over shares; a dot's area follows `sizes` (0 to 1), none without."""
    across = Axis(0, 1, _LEFT, WIDTH - _RIGHT, percent=True)
    low = 0.0 if diagonal else min((y for points in series.values() for _, y in points), default=0.0)
    ticks = _ticks(low, 1.0)
    up = Axis(ticks[0], 1, HEIGHT - _BOTTOM, _TOP, percent=True)
    lines = [_line(name, points, across, up, (sizes or {}).get(name, ())) for name, points in series.items() if points]
    rising = f"{across.place(0)},{up.place(0)} {across.place(1)},{up.place(1)}" if diagonal else ""
    marks = _marks(across, (0, 0.25, 0.5, 0.75, 1))
    return Chart(title, x_label, _apart(lines), marks, _marks(up, ticks), rising)


def _marks(axis: Axis, values: Sequence[float]) -> tuple[tuple[float, str], ...]:
    return tuple((axis.place(value), axis.text(value)) for value in values)


def _line(name: str, points: Sequence[Point], across: Axis, up: Axis, sizes: Sequence[float]) -> Line:
    places = [(across.place(x), up.place(y)) for x, y in points]
    drawn = " ".join(f"{x},{y}" for x, y in places)
    dots = tuple((x, y, round(2 + 10 * math.sqrt(size), 1)) for (x, y), size in zip(places, sizes, strict=False))
    return Line(name, drawn, dots, *places[-1], places[-1][1], points[-1][1])


def _apart(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Move labels that would lie on each other 14 pixels apart."""
    moved: dict[str, Line] = {}
    least = float(_TOP)
    for line in sorted(lines, key=lambda line: line.y):
        moved[line.name] = replace(line, label_y=max(line.y, least))
        least = moved[line.name].label_y + 14
    return tuple(moved[line.name] for line in lines)


def _thin(points: Sequence[Point]) -> Sequence[Point]:
    if len(points) <= _MOST:
        return points
    return [points[round(number * (len(points) - 1) / (_MOST - 1))] for number in range(_MOST)]


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that hold `low` and `high` between them."""
    span = max(high - low, 1e-6)
    step = 10 ** math.floor(math.log10(span))
    step = next(step * factor for factor in (0.2, 0.25, 0.5, 1, 2, 5) if span / (step * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]
