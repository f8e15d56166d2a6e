"""Each statistic against scipy, a closed form or a shift that was put in."""

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from training.calibration import Floats
from training.drift import statistics
from training.drift.compare import ALPHA, Comparison
from training.drift.observe import SCALARS, Observations, Reference


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


def test_each_column_has_scipys_p_value_times_the_number_of_columns(random: np.random.Generator) -> None:
    before, now = random.normal(size=(300, 3)), random.normal(size=(200, 3)) + np.array([0, 0.2, 3])
    found = statistics.kolmogorov_smirnov(before, now)
    for number, one in enumerate(found):
        expected = stats.ks_2samp(before[:, number], now[:, number])
        assert one.p == pytest.approx(min(1.0, 3 * expected.pvalue))
        assert one.effect == pytest.approx(expected.statistic)


def _discrepancy_by_pairs(before: Floats, now: Floats, width: float) -> float:
    def mean(one: Floats, other: Floats, *, same: bool) -> float:
        values = [
            np.exp(-((a - b) ** 2).sum() / (2 * width**2))
            for i, a in enumerate(one)
            for j, b in enumerate(other)
            if not (same and i == j)
        ]
        return float(np.mean(values))

    return mean(before, before, same=True) + mean(now, now, same=True) - 2 * mean(before, now, same=False)


def test_the_discrepancy_is_that_of_all_pairs(random: np.random.Generator) -> None:
    before, now = random.normal(size=(12, 2)), random.normal(size=(9, 2)) + 1
    distances = [float(np.linalg.norm(a - b)) for i, a in enumerate(before) for b in before[:i]]
    found = statistics.mmd(before, now, permutations=99)
    assert found.effect == pytest.approx(_discrepancy_by_pairs(before, now, float(np.median(distances))))


def test_a_shift_of_half_a_deviation_is_seen_and_none_is_not(random: np.random.Generator) -> None:
    before = random.normal(size=(300, 5))
    assert statistics.mmd(before, random.normal(size=(100, 5)) + 0.5, permutations=999).p == 0.001
    assert statistics.mmd(before, random.normal(size=(100, 5)), permutations=999).p > 0.01


def test_rare_classes_are_pooled_before_the_chi_square_test() -> None:
    before, now = np.array([100, 100, 1, 1, 2]), np.array([150, 50, 1, 0, 0])
    pooled = stats.chi2_contingency([[4, 100, 100], [1, 150, 50]], correction=False)
    found = statistics.class_shares(before, now)
    assert found.p == pytest.approx(pooled.pvalue)
    assert found.effect == pytest.approx(np.abs(before / before.sum() - now / now.sum()).sum() / 2)


def test_one_class_alone_is_no_drift() -> None:
    assert statistics.class_shares(np.array([300, 0]), np.array([200, 0])).p == 1.0


def test_the_class_that_tripled_is_named() -> None:
    before = np.full(10, 60)
    now = np.array([60, *[16] * 8, 12])
    assert statistics.moved_classes(before, now, ALPHA) == [0]
    assert statistics.moved_classes(before, np.full(10, 20), ALPHA) == []


def test_the_stability_index_names_what_it_reaches_without_drift(random: np.random.Generator) -> None:
    before = random.normal(size=835)
    drawn = [statistics.stability_index(before, random.normal(size=100)) for _ in range(200)]
    limit = 9 * (1 / 100 + 1 / 835) * stats.chi2.ppf(0.999, 9) / 9
    assert drawn[0][1] == pytest.approx(max(0.2, limit))
    assert np.mean([one[0] for one in drawn]) == pytest.approx(9 * (1 / 100 + 1 / 835), rel=0.15)
    assert statistics.stability_index(before, random.normal(size=100) + 2)[0] > 1


def test_the_estimates_of_an_unshifted_window_are_the_accuracy(random: np.random.Generator) -> None:
    confidence = random.uniform(0.4, 1, size=4000)
    right = random.uniform(size=4000) < confidence
    found = statistics.thresholded_accuracy(confidence[:2000], right[:2000], confidence[2000:])
    assert found.lower <= right[2000:].mean() <= found.upper
    assert statistics.expected_accuracy(confidence).value == pytest.approx(confidence.mean())


def test_the_domain_classifier_puts_what_moved_first(random: np.random.Generator) -> None:
    before, now = random.normal(size=(400, 6)), random.normal(size=(200, 6))
    now[:40, 2] += 6
    scores, auc = statistics.domain_scores(before, now)
    assert set(np.argsort(-scores)[:30]) <= set(range(40))
    assert auc > 0.55
    _, same = statistics.domain_scores(before, random.normal(size=(200, 6)))
    assert 0.4 < same < 0.6


def _photos(random: np.random.Generator, count: int, *, shift: float = 0.0) -> Observations:
    """Photos of ten classes whose features lie around ten centres; `shift` moves all of them."""
    centres = np.random.default_rng(5).normal(size=(10, 64)) * 2
    embedding = centres[random.integers(0, 10, count)] + random.normal(size=(count, 64)) + shift
    logits = embedding @ centres.T / 20
    powers = np.exp(logits - logits.max(1, keepdims=True))
    probabilities = powers / powers.sum(1, keepdims=True)
    own = np.stack([probabilities.max(1), -(probabilities * np.log(probabilities)).sum(1)], axis=1)
    scalars = np.concatenate([own, random.normal(size=(count, len(SCALARS) - 2))], axis=1)
    return Observations(embedding.astype(np.float32), probabilities, scalars)


def _comparison(random: np.random.Generator) -> Comparison:
    seen = _photos(random, 600)
    return Comparison(
        Reference(seen, seen.predicted),
        [f"class {number}" for number in range(10)],
        threshold=0.3,
        known_threshold=-9.0,
    )


@pytest.mark.long
def test_of_200_unshifted_windows_at_most_two_are_a_breach_and_shifted_ones_nearly_all(
    random: np.random.Generator,
) -> None:
    comparison = _comparison(random)
    assert sum(comparison.window(_photos(random, 200))["breach"] for _ in range(200)) <= 2
    assert sum(comparison.window(_photos(random, 200, shift=0.5))["breach"] for _ in range(40)) >= 38


def test_a_window_names_what_moved_and_a_small_one_is_not_tested(random: np.random.Generator) -> None:
    comparison = _comparison(random)
    window = _photos(random, 250)
    window.scalars[:, SCALARS.index("brightness")] += 2
    found = comparison.window(window)
    assert found["moved"] == ["brightness"]
    assert comparison.window(_photos(random, 199)) == {"requests": 199, "tested": False, "breach": False, "moved": []}


def test_an_accuracy_estimated_below_the_gate_is_a_breach(random: np.random.Generator) -> None:
    seen = _photos(random, 1000)
    wrong = np.where(random.uniform(size=1000) < 0.5, seen.predicted, (seen.predicted + 1) % 10)
    comparison = Comparison(Reference(seen, wrong), [str(number) for number in range(10)], gate=0.9, permutations=99)
    assert "estimated accuracy" in comparison.window(_photos(random, 300))["moved"]
