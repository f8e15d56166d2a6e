"""The geometry of the training curves."""

import math

import pytest

from kennel.rehearsal.report.curve import HEIGHT, WIDTH, chart
from kennel.rehearsal.report.page import duration, share

NAMES = {"train_loss": "train", "valid_loss": "valid"}


def points(text: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in text.split())]


def test_a_lower_loss_lies_lower_and_a_later_epoch_further_right() -> None:
    drawn = chart("Loss", [{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0}], NAMES)
    assert drawn is not None
    (x1, y1), (x2, y2) = points(drawn.lines[0].points)
    assert x1 < x2
    assert y1 < y2  # SVG counts downwards


@pytest.mark.parametrize("values", [[0.0], [0.5], [1e-9, 2e-9], [0.1, 1e6], [2.3, 0.3, 0.29], [5.0] * 300])
def test_every_point_and_tick_lies_inside_the_picture(values: list[float]) -> None:
    drawn = chart("Loss", [{"epoch": n, "train_loss": value} for n, value in enumerate(values, 1)], NAMES)
    assert drawn is not None
    inside = [*points(drawn.lines[0].points), *((x, 0) for x, _ in drawn.across), *((0, y) for y, _ in drawn.up)]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in inside)
    assert 2 <= len(drawn.up) <= 7
    assert len(drawn.across) <= 8
    assert len({text for _, text in drawn.up}) == len(drawn.up)


def test_an_accuracy_is_charted_up_to_one_in_percent() -> None:
    drawn = chart("Accuracy", [{"epoch": 1, "valid_accuracy": 0.83}], {"valid_accuracy": "valid"}, top=1)
    assert drawn is not None
    assert drawn.up[-1][1] == "100 %"


def test_values_that_are_no_numbers_are_passed_over() -> None:
    epochs: list[dict[str, float]] = [
        {"epoch": 1, "train_loss": math.nan},
        {"epoch": 2, "train_loss": 1.0},
        {"epoch": 3},
    ]
    drawn = chart("Loss", epochs, NAMES)
    assert drawn is not None
    assert [line.name for line in drawn.lines] == ["train"]
    assert len(points(drawn.lines[0].points)) == 1


def test_nothing_to_draw_is_no_chart() -> None:
    assert chart("Loss", [], NAMES) is None
    assert chart("Loss", [{"epoch": 1, "train_loss": math.inf}], NAMES) is None


def test_labels_of_lines_that_end_together_do_not_lie_on_each_other() -> None:
    drawn = chart("Loss", [{"epoch": 1, "train_loss": 0.5, "valid_loss": 0.5}], NAMES)
    assert drawn is not None
    first, second = drawn.lines
    assert abs(first.label_y - second.label_y) >= 14


@pytest.mark.parametrize(("value", "text"), [(1.0, "100.0 %"), (0.99999, "99.9 %"), (0.0, "0.0 %"), (0.123, "12.3 %")])
def test_only_the_perfect_is_a_hundred_percent(value: float, text: str) -> None:
    assert share(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min 00 s"), (3725, "62 min 05 s")]
)
def test_a_duration_is_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
