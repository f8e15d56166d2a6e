"""The temperature, the calibration error and the threshold: right on ordinary splits, bounded on odd ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

from training import calibration
from training.errors import TrainingError

SHAPE = (4000, 6)


def _overconfident(factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `factor` times those from which the labels were drawn: the temperature is known."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, SHAPE)
    chances = calibration.softmax(true)
    labels = np.array([rng.choice(SHAPE[1], p=row) for row in chances])
    return (true * factor).astype(np.float32), labels


def _loss(temperature: float, logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(calibration.softmax(logits, temperature)[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_one_that_the_logits_were_heated_by(factor: float) -> None:
    logits, labels = _overconfident(factor)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(factor, rel=0.04)


def test_the_temperature_has_the_least_loss() -> None:
    logits, labels = _overconfident(2.5)
    best = minimize_scalar(_loss, bounds=(0.05, 20), args=(logits, labels), method="bounded").x
    assert calibration.fit_temperature(logits, labels) == pytest.approx(best, rel=2e-3)


def test_the_calibrated_loss_is_the_loss_at_the_best_temperature() -> None:
    logits, labels = _overconfident(3.0)
    loss, temperature = calibration.calibrated_loss(logits, labels)
    best = minimize_scalar(_loss, bounds=(0.05, 20), method="bounded", args=(logits, labels))
    assert temperature == pytest.approx(best.x, rel=0.01)
    assert loss == pytest.approx(best.fun, rel=1e-3)
    assert calibration.calibrated_loss(3 * logits, labels)[0] == pytest.approx(loss, rel=1e-3)


def test_the_calibration_error_falls() -> None:
    logits, labels = _overconfident(3.0)
    right = logits.argmax(1) == labels
    temperature = calibration.fit_temperature(logits, labels)
    before, after = (calibration.softmax(logits, one).max(1) for one in (1.0, temperature))
    assert calibration.expected_calibration_error(before, right) > 0.1
    assert calibration.expected_calibration_error(after, right) < 0.03


def test_many_classes_are_fitted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = _overconfident(2.0)
    whole = calibration.fit_temperature(logits, labels)
    monkeypatch.setattr(calibration, "_CELLS", 50)
    assert calibration.fit_temperature(logits[:301], labels[:301]) != whole
    assert calibration.fit_temperature(logits, labels) == pytest.approx(whole, rel=1e-5)


def test_equal_logits_ask_for_no_temperature() -> None:
    assert calibration.fit_temperature(np.full((9, 4), 3.0), np.zeros(9, np.int64)) == pytest.approx(1, abs=1e-5)


def test_a_split_without_mistakes_does_not_ask_for_certainty() -> None:
    logits = np.eye(3) * 2.0
    temperature = calibration.fit_temperature(np.tile(logits, (3, 1)), np.tile(np.arange(3), 3))
    assert 0.3 < temperature < 1
    assert calibration.softmax(logits, temperature).max() < 0.999


def test_one_image_moves_the_temperature_little() -> None:
    assert 0.5 < calibration.fit_temperature(np.array([[2.0, 0.0]]), np.array([0])) < 1
    assert 1 < calibration.fit_temperature(np.array([[2.0, 0.0]]), np.array([1])) < 3


def test_a_model_that_is_always_wrong_gets_a_high_temperature_with_an_end() -> None:
    assert calibration.fit_temperature(np.tile([[50.0, 0.0]], (99, 1)), np.ones(99, np.int64)) == 20.0


@pytest.mark.parametrize("huge", [1e4, 1e30, 3e38])
def test_huge_logits_overflow_nothing(huge: float) -> None:
    logits = (np.eye(4, dtype=np.float64) * huge).astype(np.float32)
    with np.errstate(all="raise", under="ignore"):
        assert 0.05 <= calibration.fit_temperature(logits, np.arange(4)) <= 20
        assert calibration.fit_temperature(logits, np.array([1, 2, 3, 0])) == 20
        assert np.isfinite(calibration.softmax(-logits)).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(2, 6), st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_the_temperature_is_a_number_within_its_bounds(seed: int, images: int, classes: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, scale, (images, classes))
    assert 0.05 <= calibration.fit_temperature(logits, rng.integers(0, classes, images)) <= 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(TrainingError, match="infinite or undefined"):
        calibration.fit_temperature(np.array([[0.0, bad]]), np.array([0]))


def test_the_calibration_error_is_the_gap_between_confidence_and_truth() -> None:
    confidence, right = np.full(10, 0.8), np.array([True] * 6 + [False] * 4)
    bins = calibration.calibration(confidence, right)
    assert len(bins) == 1
    assert (bins[0].share, bins[0].confidence, bins[0].accuracy) == pytest.approx((1, 0.8, 0.6))
    assert calibration.expected_calibration_error(confidence, right) == pytest.approx(0.2)


def test_gaps_of_the_bins_do_not_cancel_out() -> None:
    confidence, right = np.array([0.5, 0.5, 0.9, 0.9]), np.array([True, True, False, False])
    assert calibration.expected_calibration_error(confidence, right) == pytest.approx(0.5 * 0.5 + 0.5 * 0.9)


def test_certainty_falls_into_the_last_bin() -> None:
    assert len(calibration.calibration(np.array([1.0, 0.95]), np.array([True, False]))) == 1


CONFIDENCE = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
RIGHT = np.array([True, True, False, True, False])


def test_the_threshold_answers_the_share_that_was_asked_for() -> None:
    assert calibration.abstain(CONFIDENCE, RIGHT, coverage=0.8, precision=0) == {
        "threshold": pytest.approx(0.6 - calibration.SLACK),
        "coverage": 0.8,
        "precision": 0.75,
    }


def test_a_share_between_two_images_is_rounded_towards_more_answers() -> None:
    chosen = calibration.abstain(CONFIDENCE, RIGHT, coverage=0.7, precision=0)
    assert chosen
    assert chosen["coverage"] == 0.8


def test_a_precision_takes_as_many_answers_as_it_can() -> None:
    assert calibration.abstain(CONFIDENCE, RIGHT, coverage=0.95, precision=0.75) == {
        "threshold": pytest.approx(0.6 - calibration.SLACK),
        "coverage": 0.8,
        "precision": 0.75,
    }


def test_the_order_of_the_images_is_nothing_to_it() -> None:
    order = [3, 0, 4, 1, 2]
    assert calibration.abstain(CONFIDENCE[order], RIGHT[order], coverage=0.8, precision=0) == calibration.abstain(
        CONFIDENCE, RIGHT, coverage=0.8, precision=0
    )


def test_a_precision_that_no_threshold_reaches_gives_none() -> None:
    assert calibration.abstain(CONFIDENCE, np.zeros(5, bool), coverage=0.95, precision=0.5) is None
    assert calibration.abstain(CONFIDENCE[::-1], RIGHT, coverage=0.95, precision=0.8) is None


def test_everything_is_answered_without_a_threshold() -> None:
    assert calibration.abstain(CONFIDENCE, RIGHT, coverage=1.0, precision=0) is None


def test_a_precision_counts_where_the_coverage_is_one() -> None:
    chosen = calibration.abstain(CONFIDENCE, RIGHT, coverage=1.0, precision=1.0)
    assert chosen
    assert chosen["coverage"] == 0.4


def test_images_of_the_same_confidence_are_answered_together() -> None:
    chosen = calibration.abstain(np.full(4, 1.0), np.array([True, False, True, True]), coverage=0.5, precision=0)
    assert chosen == {"threshold": pytest.approx(1 - calibration.SLACK), "coverage": 1.0, "precision": 0.75}
    assert chosen["threshold"] < 1  # another machine may say 0.99999994


def test_one_image_is_enough() -> None:
    chosen = calibration.abstain(np.array([0.4]), np.array([True]), coverage=0.95, precision=0)
    assert chosen == {"threshold": pytest.approx(0.4 - calibration.SLACK), "coverage": 1.0, "precision": 1.0}


def test_no_answer_has_no_precision() -> None:
    assert calibration.coverage_and_precision(CONFIDENCE, RIGHT, 0.95) == (0.0, None)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.floats(0.01, 1), st.floats(0, 1)
)
def test_what_is_promised_is_what_the_threshold_does(
    answers: list[tuple[float, bool]], coverage: float, precision: float
) -> None:
    confidence, right = np.array([one for one, _ in answers]), np.array([one for _, one in answers])
    chosen = calibration.abstain(confidence, right, coverage=coverage, precision=precision)
    if chosen:
        done = calibration.coverage_and_precision(confidence, right, chosen["threshold"])
        assert done == (chosen["coverage"], chosen["precision"])
        assert chosen["precision"] >= precision if precision else chosen["coverage"] >= coverage - 1e-9
