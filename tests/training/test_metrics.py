"""SageMaker reads metrics from the log with regular expressions."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.metrics import METRIC_DEFINITIONS, format_epoch

numbers = st.floats(min_value=0, max_value=1e6)


def _read(line: str) -> dict[str, float]:
    found = {one["Name"]: re.findall(one["Regex"], line) for one in METRIC_DEFINITIONS}
    assert all(len(values) == 1 for values in found.values())
    return {name: float(values[0]) for name, values in found.items()}


@given(numbers, numbers, numbers, numbers)
def test_each_definition_finds_its_own_number_once(loss: float, valid: float, accuracy: float, speed: float) -> None:
    line = format_epoch(3, train_loss=loss, valid_loss=valid, valid_accuracy=accuracy, images_per_second=speed)
    read = _read(line)
    assert read["train_loss"] == pytest.approx(loss, abs=1e-6)
    assert read["valid_loss"] == pytest.approx(valid, abs=1e-6)
    assert read["valid_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert read["images_per_second"] == pytest.approx(speed, abs=0.06)


def test_the_line_is_the_one_that_is_documented() -> None:
    line = format_epoch(3, train_loss=0.123456, valid_loss=0.234567, valid_accuracy=0.971234, images_per_second=512.3)
    assert line == ("epoch=3 train_loss=0.123456 valid_loss=0.234567 valid_accuracy=0.971234 images_per_second=512.3")
