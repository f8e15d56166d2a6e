"""The confidence below which a model says nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.calibration import SLACK, abstain, coverage_and_precision

CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
RIGHT = np.array([True, True, False, True, False])


def test_the_threshold_answers_the_share_that_was_asked_for() -> None:
    assert abstain(CONFIDENCE, RIGHT, coverage=0.8, precision=0) == {
        "threshold": pytest.approx(0.6 - SLACK),
        "coverage": 0.8,
        "precision": 0.75,
    }


def test_a_share_between_two_images_is_rounded_towards_more_answers() -> None:
    chosen = abstain(CONFIDENCE, RIGHT, coverage=0.7, precision=0)
    assert chosen
    assert chosen["coverage"] == 0.8


def test_a_precision_takes_as_many_answers_as_it_can() -> None:
    assert abstain(CONFIDENCE, RIGHT, coverage=0.95, precision=0.75) == {
        "threshold": pytest.approx(0.6 - SLACK),
        "coverage": 0.8,
        "precision": 0.75,
    }


def test_the_order_of_the_images_is_nothing_to_it() -> None:
    order = [3, 0, 4, 1, 2]
    assert abstain(CONFIDENCE[order], RIGHT[order], coverage=0.8, precision=0) == abstain(
        CONFIDENCE, RIGHT, coverage=0.8, precision=0
    )


def test_a_precision_that_no_threshold_reaches_gives_none() -> None:
    assert abstain(CONFIDENCE, np.zeros(5, bool), coverage=0.95, precision=0.5) is None
    assert abstain(CONFIDENCE[::-1], RIGHT, coverage=0.95, precision=0.8) is None


def test_everything_is_answered_without_a_threshold() -> None:
    assert abstain(CONFIDENCE, RIGHT, coverage=1.0, precision=0) is None


def test_a_precision_counts_where_the_coverage_is_one() -> None:
    chosen = abstain(CONFIDENCE, RIGHT, coverage=1.0, precision=1.0)
    assert chosen
    assert chosen["coverage"] == 0.4


def test_images_of_the_same_confidence_are_answered_together() -> None:
    chosen = abstain(np.full(4, 1.0), np.array([True, False, True, True]), coverage=0.5, precision=0)
    assert chosen == {"threshold": pytest.approx(1 - SLACK), "coverage": 1.0, "precision": 0.75}
    assert chosen["threshold"] < 1  # another machine may say 0.99999994


def test_one_image_is_enough() -> None:
    chosen = abstain(np.array([0.4]), np.array([True]), coverage=0.95, precision=0)
    assert chosen == {"threshold": pytest.approx(0.4 - SLACK), "coverage": 1.0, "precision": 1.0}


def test_no_answer_has_no_precision() -> None:
    assert coverage_and_precision(CONFIDENCE, RIGHT, 0.95) == (0.0, None)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.floats(0.01, 1), st.floats(0, 1)
)
def test_what_is_promised_is_what_the_threshold_does(
    answers: list[tuple[float, bool]], coverage: float, precision: float
) -> None:
    confidence, right = np.array([one for one, _ in answers]), np.array([one for _, one in answers])
    chosen = abstain(confidence, right, coverage=coverage, precision=precision)
    if chosen:
        done = coverage_and_precision(confidence, right, chosen["threshold"])
        assert done == (chosen["coverage"], chosen["precision"])
        assert chosen["precision"] >= precision if precision else chosen["coverage"] >= coverage - 1e-9
