"""One window of requests against the reference: what moved, by how much, and whether that is an alarm."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.calibration import Floats
from training.drift import statistics
from training.drift.observe import SCALARS, Observations, Reference

LEAST = 200  # requests of a window: fewer cannot tell a shift from luck
ALPHA = 0.001  # false alarms a window, over all tests together
_TESTS = 4  # that share ALPHA: columns, MMD, classes, "none of these"
_DIMENSIONS = 32


@dataclass(frozen=True)
class Projection:
    """The principal components of one half of the reference; the other half is what windows are compared with.

    On the photos that components were fitted to they spread more than on any others, which would look like drift.
    """

    mean: Floats
    components: Floats

    @classmethod
    def fit(cls, embedding: Floats) -> "Projection":
        mean = embedding.mean(0)
        _, _, components = np.linalg.svd(embedding - mean, full_matrices=False)
        return cls(mean, components[:_DIMENSIONS].T)

    def __call__(self, embedding: NDArray[Any]) -> Floats:
        return np.asarray((embedding - self.mean) @ self.components, np.float64)


class Comparison:
    """Windows against one reference. `threshold` and `known_threshold` are the model's, of the top probability and
    of the similarity below which it answers "none of these"; `gate` is the accuracy it must have.

    All that depends on the reference alone is computed once.
    """

    def __init__(
        self,
        reference: Reference,
        classes: Sequence[str],
        *,
        threshold: float | None = None,
        known_threshold: float | None = None,
        gate: float = 0.0,
        permutations: int = statistics.PERMUTATIONS,
    ) -> None:
        self.reference, self.classes, self.gate = reference, classes, gate
        # A limit that no answer can fall below stands for none.
        self._limits = np.array([-1.0 if one is None else one for one in (threshold, known_threshold)])
        self._permutations = permutations
        half = np.random.default_rng(0).permutation(len(reference.labels))
        fitted, self._rest = np.array_split(half, 2)
        embedding = np.asarray(reference.seen.embedding, np.float64)
        self._project = Projection.fit(embedding[fitted])
        self._components = self._project(embedding[self._rest])

    def window(self, seen: Observations) -> dict[str, Any]:
        """Return what drift.json says of a window: tests with p and effect, `moved` in words, `breach`."""
        if len(seen) < LEAST:
            return {"requests": len(seen), "tested": False, "breach": False, "moved": []}
        tests = {**self._columns(seen), "embedding (MMD)": self._mmd(seen), **self._answers(seen)}
        accuracy = self._accuracy(seen)
        moved = [name for name, one in tests.items() if one.p < ALPHA / _TESTS]
        if accuracy["atc"].upper < self.gate:
            moved.append("estimated accuracy")
        return {
            "requests": len(seen),
            "tested": True,
            "breach": bool(moved),
            "moved": moved,
            "classes": self._classes(seen),
            "tests": {name: asdict(one) for name, one in tests.items()},
            "stability": self._stability(seen),
            "accuracy": {name: asdict(one) for name, one in accuracy.items()},
        }

    def moved_most(self, seen: Observations) -> tuple[list[int], float]:
        """Return the window's photos, those first that look least like the reference, and the classifier's AUC."""
        before = np.concatenate([self._components, self.reference.seen.scalars[self._rest]], axis=1)
        now = np.concatenate([self._project(seen.embedding), seen.scalars], axis=1)
        scores, auc = statistics.domain_scores(before, now)
        return [int(index) for index in np.argsort(-scores, kind="stable")], auc

    def _columns(self, seen: Observations) -> dict[str, statistics.Outcome]:
        """Return the scalars' tests and the component that moved most; all columns share one correction."""
        scalars = self.reference.seen.scalars[self._rest]
        before = np.concatenate([scalars, self._components], axis=1)
        now = np.concatenate([seen.scalars, self._project(seen.embedding)], axis=1)
        found = statistics.kolmogorov_smirnov(before, now)
        strongest = min(found[len(SCALARS) :], key=lambda one: one.p)
        return {**dict(zip(SCALARS, found, strict=False)), "embedding (one dimension)": strongest}

    def _mmd(self, seen: Observations) -> statistics.Outcome:
        return statistics.mmd(self._components, self._project(seen.embedding), permutations=self._permutations)

    def _answers(self, seen: Observations) -> dict[str, statistics.Outcome]:
        before = self.reference.seen
        found = {"classes": statistics.class_shares(*self._counts(seen))}
        columns = [SCALARS.index("top probability"), SCALARS.index("similarity")]
        refused = [np.any(one.scalars[:, columns] < self._limits, axis=1) for one in (before, seen)]
        found["none of these"] = statistics.share_differs(np.asarray(refused[0]), np.asarray(refused[1]))
        return found

    def _counts(self, seen: Observations) -> tuple[Any, Any]:
        before, now = (np.bincount(one.predicted, minlength=len(self.classes)) for one in (self.reference.seen, seen))
        return before, now

    def _classes(self, seen: Observations) -> list[dict[str, Any]]:
        before, now = self._counts(seen)
        return [
            {"class": self.classes[number], "before": float(before[number] / before.sum()), "now": float(share)}
            for number in statistics.moved_classes(before, now, ALPHA)
            for share in [now[number] / now.sum()]
        ]

    def _stability(self, seen: Observations) -> dict[str, Any]:
        found = {}
        for column in (0, 1):
            index, limit = statistics.stability_index(self.reference.seen.scalars[:, column], seen.scalars[:, column])
            found[SCALARS[column]] = {"psi": index, "without_drift": limit}
        return found

    def _accuracy(self, seen: Observations) -> dict[str, statistics.Estimate]:
        before = self.reference.seen
        right = np.asarray(before.predicted == self.reference.labels)
        return {
            "atc": statistics.thresholded_accuracy(before.confidence, right, seen.confidence),
            "cbpe": statistics.expected_accuracy(seen.confidence),
        }
