"""What counts as known: the reference of training images, its threshold, and what is said where it can tell nothing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training import known
from training.errors import TrainingError

WIDTH = 40


def _clusters(count: int, seed: int, classes: int = 8, first: int = 0, spread: float = 0.3) -> tuple[Any, Any]:
    """Return features [count, WIDTH] that lie around one direction for each class, and their classes."""
    chance = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = np.eye(WIDTH)[first + labels] + spread * chance.normal(size=(count, WIDTH)) / np.sqrt(WIDTH)
    return features.astype(np.float32), labels


def _fit(coverage: float = 0.9, train: int = 400, valid: int = 200, **how: Any) -> known.Fitted:
    return known.fit(*_clusters(train, 1, **how), *_clusters(valid, 2, **how), coverage=coverage)


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.97])
def test_the_threshold_keeps_the_stated_share_of_the_validation_images_and_refuses_what_lies_elsewhere(
    coverage: float,
) -> None:
    fitted = _fit(coverage)
    threshold = fitted.reference.threshold
    assert threshold is not None
    assert coverage <= fitted.record["coverage"] <= coverage + 1 / 200 + 1e-9
    kept = fitted.reference.scores(_clusters(200, 2)[0] @ fitted.axes) >= threshold
    assert kept.mean() == fitted.record["coverage"]
    strange = fitted.reference.scores(_clusters(100, 3, first=20)[0] @ fitted.axes)
    assert (strange < threshold).all()
    assert fitted.record["unseen_refused"] == 1.0
    assert fitted.record["note"] == ""


def test_a_score_is_the_mean_cosine_to_the_nearest_rows() -> None:
    fitted = _fit()
    (one,), _ = _clusters(1, 5)
    rows, embedding = fitted.reference.rows.astype(np.float64), one @ fitted.axes
    assert rows.shape == (400, WIDTH)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(400), abs=1e-2)  # in float16
    cosines = sorted(rows @ embedding / np.linalg.norm(embedding))[-10:]
    assert fitted.reference.scores(embedding[None])[0] == pytest.approx(np.mean(cosines), abs=1e-5)
    assert fitted.reference.scores(1000 * embedding[None])[0] == pytest.approx(np.mean(cosines), abs=1e-5)


def test_wide_features_are_reduced_and_the_reference_stays_small() -> None:
    chance = np.random.default_rng(0)
    features, labels = chance.normal(size=(600, 500)).astype(np.float32), np.arange(600) % 3
    fitted = known.fit(features, labels, features[:50], labels[:50], coverage=0.95)
    assert fitted.axes.shape == (500, 256)
    assert fitted.reference.rows.shape == (600, 256)
    assert fitted.reference.rows.dtype == np.float16
    assert known.ROWS * 256 * 2 <= 1 << 20  # bytes


def test_no_more_neighbours_count_than_a_usual_class_has_images() -> None:
    assert _fit(train=24).record["neighbours"] == 3
    assert _fit(train=400).record["neighbours"] == 10


@pytest.mark.parametrize(
    ("how", "note"),
    [
        ({"coverage": 1.0}, "The hyperparameter known_coverage is 1"),
        ({"valid": 19}, "19 validation images are too few to set a threshold"),
    ],
)
def test_without_a_threshold_every_picture_counts_as_known_and_the_record_says_why(
    how: dict[str, Any], note: str
) -> None:
    fitted = _fit(**how)
    assert fitted.reference.threshold is None
    assert fitted.record["note"].startswith(note)
    assert (fitted.record["coverage"], fitted.record["unseen_refused"]) == (1.0, None)


def test_the_record_says_so_where_the_features_hardly_tell() -> None:
    """A random backbone's features are nearly the same for every picture."""
    record = _fit(spread=100.0).record
    assert record["threshold"] is not None
    assert record["unseen_refused"] < 0.25
    assert "refused hardly more often" in record["note"]
    assert "without pretrained weights may tell nothing" in record["note"]


def test_with_one_class_nothing_can_be_left_out() -> None:
    record = _fit(classes=1).record
    assert record["threshold"] is not None
    assert record["unseen_refused"] is None
    assert "too few images of the other classes" in record["note"]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_features_have_a_threshold_that_a_server_takes(value: float) -> None:
    """Float16 rounds a cosine of 1 to a little above it; pictures without any feature have a cosine of 0."""
    features, labels = np.full((40, WIDTH), value, np.float32), np.arange(40) % 2
    record = known.fit(features, labels, features, labels, coverage=0.95).record
    assert -1 <= record["threshold"] <= 1
    assert record["coverage"] == 1.0


def test_features_that_are_no_numbers_are_refused() -> None:
    features, labels = _clusters(40, 1)
    features[3, 5] = np.nan
    with pytest.raises(TrainingError, match="infinite or undefined numbers; lower the learning_rate"):
        known.fit(features, labels, features, labels, coverage=0.95)


def test_a_reference_is_read_back_and_a_broken_one_is_refused(tmp_path: Path) -> None:
    fitted = _fit()
    np.save(tmp_path / known.FILE, fitted.reference.rows)
    loaded = known.Reference.load(tmp_path, fitted.record)
    assert loaded.rows.tolist() == fitted.reference.rows.tolist()
    assert (loaded.neighbours, loaded.threshold) == (10, fitted.reference.threshold)
    for broken in (fitted.reference.rows[:9], fitted.reference.rows[0], np.full((20, 3), np.inf, np.float16)):
        np.save(tmp_path / known.FILE, broken)
        with pytest.raises(ValueError, match=r"known\.npy is no reference of 10 images or more"):
            known.Reference.load(tmp_path, fitted.record)
