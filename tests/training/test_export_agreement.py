"""How an exported network is held against the trained one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from training.calibration import softmax  # noqa: E402
from training.train.export.agreement import BATCH, TIE, Agreement, Yardstick  # noqa: E402


def _yardstick(logits: list[list[float]], temperature: float = 1.0) -> Yardstick:
    """Of a network that answers these: each picture holds its own logits, one a channel."""
    return Yardstick(torch.nn.Flatten(), torch.tensor(logits)[:, :, None, None], temperature)


def _by(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A network whose logits differ by `change`."""
    return lambda images: change(images.reshape(len(images), -1))


def test_the_same_answers_agree_wholly() -> None:
    assert _yardstick([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]]).hold(_by(lambda logits: logits)) == Agreement(1.0, 0.0, 2)


def test_another_first_choice_counts_and_the_largest_change_is_of_any_class() -> None:
    logits = [[3.0, 1.0, 0.0]] * (2 * BATCH) + [[0.0, 2.0, 1.0]] * 4  # the last batch is not full

    def swapped(some: Any) -> Any:
        return np.where(some[:, :1] == 0, some[:, ::-1], some)  # [0, 2, 1] becomes [1, 2, 0], of the same first choice

    found = _yardstick(logits).hold(_by(swapped))
    weights = np.exp([0.0, 2.0, 1.0])
    assert found.share == 1.0
    assert found.change == pytest.approx((weights[2] - weights[0]) / weights.sum())
    other = _yardstick(logits).hold(_by(lambda some: np.where(some[:, :1] == 0, some[:, [1, 0, 2]], some)))
    assert (other.share, other.images) == (2 * BATCH / (2 * BATCH + 4), 2 * BATCH + 4)


def test_probabilities_are_compared_after_the_temperature() -> None:
    found = _yardstick([[4.0, 0.0]], temperature=4.0).hold(_by(lambda logits: logits * 2))
    expected = softmax(np.array([[8.0, 0.0]]), 4.0) - softmax(np.array([[4.0, 0.0]]), 4.0)
    assert found.change == pytest.approx(expected.max())


def test_a_choice_that_torch_holds_for_as_likely_is_no_other_one() -> None:
    apart = 2 * TIE  # logits of two classes, so probabilities a quarter of it around a half: within the tie
    assert _yardstick([[apart, 0.0]]).hold(_by(lambda logits: -logits)).share == 1.0
    assert _yardstick([[6 * apart, 0.0]]).hold(_by(lambda logits: -logits)).share == 0.0


def test_a_network_that_is_less_sure_of_another_choice_does_not_agree() -> None:
    found = _yardstick([[0.4, 0.3, 0.0]]).hold(_by(lambda logits: logits[:, [1, 0, 2]] / 4))
    assert found.share == 0.0


def test_a_network_whose_answers_are_no_numbers_agrees_with_nothing() -> None:
    found = _yardstick([[2.0, 1.0]]).hold(_by(lambda logits: logits * np.nan))
    assert found.change == 1.0
    assert not found.holds(0.0, 0.99)


@pytest.mark.parametrize(("share", "change", "holds"), [(0.98, 0.1, True), (0.97, 0.05, False), (1.0, 0.11, False)])
def test_both_limits_must_be_kept(share: float, change: float, holds: bool) -> None:
    assert Agreement(share, change, 50).holds(0.98, 0.1) is holds
