"""The tests that compare a window of requests with the reference: numpy and scipy, no files, no pictures.

Failing Loudly (arXiv 1810.11953) compares such tests; ATC is arXiv 2201.04234. Every p-value has an effect size beside
it, since with thousands of requests everything is significant.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats  # type: ignore[import-untyped]
from scipy.spatial.distance import cdist, pdist  # type: ignore[import-untyped]

from training.calibration import Flags, Floats, Labels

LARGEST = 1000  # samples of each side that MMD looks at
PERMUTATIONS = 4999  # so that p can fall to 0.0002
_EXPECTED = 5  # counts below this are pooled before the chi-square test
_BINS = 10  # of PSI
_DRAWS = 1000  # of the bootstrap
_FOLDS = 5
_PENALTY = 1.0  # of the squared weights of the domain classifier, whose inputs are standardized


@dataclass(frozen=True)
class Outcome:
    """The p-value of a test, after its own correction for many comparisons, and the size of what it found."""

    p: float
    effect: float


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval."""

    value: float
    lower: float
    upper: float


def kolmogorov_smirnov(reference: Floats, window: Floats) -> list[Outcome]:
    """Return the two-sample test of each column, p after Bonferroni; the effect is the largest gap of the two CDFs."""
    columns = reference.shape[1]
    found = [stats.ks_2samp(reference[:, number], window[:, number]) for number in range(columns)]
    return [Outcome(min(1.0, float(one.pvalue) * columns), float(one.statistic)) for one in found]


def mmd(reference: Floats, window: Floats, *, seed: int = 0, permutations: int = PERMUTATIONS) -> Outcome:
    """Return the permutation test of the squared maximum mean discrepancy (Gretton 2012, unbiased) as the effect.

    The kernel is Gaussian; its width is the median distance within the reference. More than LARGEST samples of a side
    are drawn from, with `seed`.
    """
    random = np.random.default_rng(seed)
    first, second = (random.permutation(one)[:LARGEST] for one in (reference, window))
    width = float(np.median(pdist(first))) or 1.0
    joined = np.concatenate([first, second])
    kernel = np.exp(-cdist(joined, joined, "sqeuclidean") / (2 * width**2))
    np.fill_diagonal(kernel, 0)
    sides = np.zeros(len(joined), np.float64)
    sides[len(first) :] = 1
    drawn = np.stack([sides, *(random.permutation(sides) for _ in range(permutations))])  # [1 + permutations, samples]
    values = _squared_discrepancies(kernel, drawn, len(first), len(second))
    return Outcome(float((values >= values[0] - 1e-12).mean()), float(values[0]))


def _squared_discrepancies(kernel: Floats, sides: Floats, first: int, second: int) -> Floats:
    """Return the unbiased squared discrepancy of each row of `sides`, which has 1 for the samples of the second."""
    rows = sides @ kernel
    within_second = (rows * sides).sum(1)
    between = rows.sum(1) - within_second
    within_first = kernel.sum() - within_second - 2 * between
    return np.asarray(
        within_first / (first * (first - 1)) + within_second / (second * (second - 1)) - 2 * between / (first * second)
    )


def class_shares(reference: Labels, window: Labels) -> Outcome:
    """Return the chi-square test of two vectors of counts by class; the effect is the total variation distance.

    Classes of which fewer than five are expected in the window are counted as one, the rarest first.
    """
    total, asked = reference.sum(), window.sum()
    effect = float(np.abs(reference / total - window / asked).sum() / 2)
    both = np.stack([reference, window])[:, np.argsort(reference + window, kind="stable")]
    both = both[:, both.sum(0) > 0]
    expected = both.sum(0) * min(total, asked) / (total + asked)
    rare = int((expected < _EXPECTED).sum())
    table = np.concatenate([both[:, :rare].sum(1, keepdims=True), both[:, rare:]], axis=1) if rare else both
    if table.shape[1] < 2:
        return Outcome(1.0, effect)
    return Outcome(float(stats.chi2_contingency(table, correction=False).pvalue), effect)


def moved_classes(reference: Labels, window: Labels, alpha: float) -> list[int]:
    """Return the classes whose share differs (Fisher's exact test, p doubled for both sides, Holm's correction)."""
    total, asked = int(reference.sum()), int(window.sum())
    spread = stats.hypergeom(total + asked, reference + window, asked)
    p = np.minimum(1.0, 2 * np.minimum(spread.cdf(window), spread.sf(window - 1)))
    order = np.argsort(p, kind="stable")
    passed = p[order] <= alpha / (len(p) - np.arange(len(p)))
    count = len(passed) if passed.all() else int(np.argmin(passed))
    return [int(number) for number in order[:count]]


def share_differs(reference: Flags, window: Flags) -> Outcome:
    """Return Fisher's exact test of two shares; the effect is the difference, window less reference."""
    table = [[int(one.sum()), int((~one).sum())] for one in (reference, window)]
    return Outcome(float(stats.fisher_exact(table).pvalue), float(window.mean() - reference.mean()))


def stability_index(reference: Floats, window: Floats) -> tuple[float, float]:
    """Return the population stability index over ten bins of the reference, and what it reaches without any drift.

    The index has a mean of (bins - 1)(1/n + 1/m) whatever the drift: the second number is the 99.9 % point of that
    distribution, at least the usual 0.2.
    """
    edges = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = len(edges) + 1
    before, now = (np.bincount(np.searchsorted(edges, one), minlength=bins) + 0.5 for one in (reference, window))
    before, now = before / before.sum(), now / now.sum()
    scale = 1 / len(reference) + 1 / len(window)
    limit = float(stats.chi2.ppf(0.999, max(1, bins - 1)) * scale)
    return float(((now - before) * np.log(now / before)).sum()), max(0.2, limit)


def thresholded_accuracy(confidence: Floats, right: Flags, window: Floats, *, seed: int = 0) -> Estimate:
    """Return the accuracy that ATC estimates: the share of the window above the threshold that as many of the
    reference pass as are right. The interval is that of a bootstrap of both sides.
    """
    random = np.random.default_rng(seed)

    def estimate(chosen: NDArray[np.int64], asked: NDArray[np.int64]) -> float:
        threshold = np.quantile(confidence[chosen], 1 - right[chosen].mean())
        return float((window[asked] >= threshold).mean())

    every = np.arange(len(confidence)), np.arange(len(window))
    draws = [estimate(*(random.choice(one, len(one)) for one in every)) for _ in range(_DRAWS)]
    return _estimate(estimate(*every), draws)


def expected_accuracy(window: Floats, *, seed: int = 0) -> Estimate:
    """Return the accuracy that CBPE estimates: the mean of the calibrated top probability; a bootstrap's interval."""
    random = np.random.default_rng(seed)
    draws = [float(random.choice(window, len(window)).mean()) for _ in range(_DRAWS)]
    return _estimate(float(window.mean()), draws)


def _estimate(value: float, draws: list[float]) -> Estimate:
    lower, upper = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(lower), float(upper))


def domain_scores(reference: Floats, window: Floats, *, seed: int = 0) -> tuple[Floats, float]:
    """Return for each sample of the window how much it looks like the window, and the classifier's AUC (0.5: not).

    A logistic regression tells the two apart; each score comes from a fit that has not seen the sample.
    """
    both = np.concatenate([reference, window])
    both = (both - both.mean(0)) / np.maximum(both.std(0), 1e-9)
    both = np.concatenate([both, np.ones((len(both), 1))], axis=1)
    live = np.arange(len(both)) >= len(reference)
    folds = np.random.default_rng(seed).permutation(len(both)) % _FOLDS
    scores = np.empty(len(both))
    for fold in range(_FOLDS):
        held = folds == fold
        scores[held] = both[held] @ _logistic(both[~held], live[~held])
    ranks = stats.rankdata(scores)
    wins = ranks[live].sum() - len(window) * (len(window) + 1) / 2
    return scores[len(reference) :], float(wins / (len(window) * len(reference)))


def _logistic(inputs: Floats, live: Flags) -> Floats:
    """Return the weights of a logistic regression in which both sides weigh the same; the last one is the constant."""
    signs = np.where(live, 1.0, -1.0)
    weight = np.where(live, 0.5 / live.mean(), 0.5 / (~live).mean())
    penalty = np.full(inputs.shape[1], _PENALTY)
    penalty[-1] = 0

    def loss(weights: Floats) -> tuple[float, Floats]:
        margins = signs * (inputs @ weights)
        slope = -signs * weight / (1 + np.exp(np.minimum(margins, 500)))
        value = (weight * np.logaddexp(0, -margins)).sum() + (penalty * weights**2).sum() / 2
        return float(value), inputs.T @ slope + penalty * weights

    return np.asarray(optimize.minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B").x)
