"""The network answers with probabilities, and says when it is unhealthy."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from inference import classifier
from inference.artifact import Known
from inference.classifier import Network

PIXELS = np.zeros((2, 2, 3), np.uint8)


class Says:
    """A runtime whose logits come from a function."""

    def __init__(self, logits: Callable[[], list[float]]) -> None:
        self._logits = logits

    def outputs(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        return [np.array(self._logits(), np.float32)]


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1, 20])
def test_logits_become_probabilities_and_the_temperature_divides_them(temperature: float) -> None:
    odds = np.exp(np.array([1.0, 2.0, 3.0]) / temperature)
    answer = Network(Says(lambda: [1, 2, 3]), temperature).infer(PIXELS).probabilities
    assert answer == pytest.approx(odds / odds.sum(), rel=1e-12)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_no_temperature_makes_probabilities_overflow() -> None:
    assert Network(Says(lambda: [1e30, 2e30, 3e30]), 1e-300).infer(PIXELS).probabilities == [0, 0, 1]


def test_large_logits_do_not_overflow() -> None:
    assert Network(Says(lambda: [1e6, 2e6, 3e6])).infer(PIXELS).probabilities == [0, 0, 1]


def test_the_score_is_the_mean_cosine_to_the_nearest_rows() -> None:
    class Knows(Says):
        def outputs(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
            return [*super().outputs(pixels), np.array([3, 4], np.float32)]

    rows = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    for threshold, is_known in ((0.69, True), (0.71, False)):
        answer = Network(Knows(lambda: [1, 2]), known=Known(rows, 2, threshold)).infer(PIXELS)
        assert answer.known == {"score": pytest.approx(0.7), "threshold": threshold, "is_known": is_known}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_three_failures_in_a_row_are_unhealthy_and_one_answer_heals(bad: float) -> None:
    logits = [bad, 0.0]
    found = Network(Says(lambda: logits))
    for healthy in (True, True, False):
        with pytest.raises(RuntimeError, match="not finite"):
            found.infer(PIXELS)
        assert found.healthy is healthy
    logits[0] = 1.0
    found.infer(PIXELS)
    assert found.healthy


def test_an_inference_that_does_not_come_back_is_unhealthy_though_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "_STUCK_AFTER", -1.0)  # every inference under way counts as stuck
    go = threading.Event()
    waits = [True, False]
    stuck = Network(Says(lambda: [1.0] if not waits.pop(0) or go.wait(60) else []))
    thread = threading.Thread(target=stuck.infer, args=(PIXELS,))
    thread.start()
    try:
        while len(waits) == 2:
            time.sleep(0.001)
        assert stuck.infer(PIXELS).probabilities == [1]
        assert not stuck.healthy
    finally:
        go.set()
        thread.join()
    assert stuck.healthy
