"""Scores of known answers."""

import numpy as np
import pytest
from scipy.stats import binomtest  # type: ignore[import-untyped]
from sklearn.metrics import (  # type: ignore[import-untyped]
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from training.calibration import softmax
from training.evaluate import scores

CLASSES = ("a", "b", "c")
TOLD = [(0, 0), (0, 0), (0, 1), (0, 1), (1, 1), (1, 2), (2, 2), (2, 2), (2, 2), (2, 0)]  # (true, predicted)


def _answers() -> scores.Answers:
    told = {0: [0.8, 0.12, 0.08], 1: [0.15, 0.8, 0.05], 2: [0.05, 0.15, 0.8]}
    logits = np.log(np.array([told[predicted] for _, predicted in TOLD]))
    return scores.Answers.from_logits(logits, np.array([true for true, _ in TOLD], np.int64))


def test_answers_hold_the_best_class_its_probability_and_the_rank_of_the_truth() -> None:
    logits = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 1.0]], np.float32)
    answers = scores.Answers.from_logits(logits, np.array([2, 0]), temperature=2.0)
    assert answers.predicted.tolist() == [1, 0]
    assert answers.right.tolist() == [False, True]
    assert answers.rank.tolist() == [1, 0]
    assert answers.confidence == pytest.approx(softmax(logits / 2).max(1))
    assert answers.uncalibrated == pytest.approx(softmax(logits).max(1))


def test_a_picture_that_is_not_known_is_none_of_these_however_sure_the_answer_and_neither_right_nor_wrong() -> None:
    labels, confidence = np.array([0, 0, 0, 0]), np.array([0.9, 0.9, 0.2, 0.9])
    predicted, rank, similarity = np.array([0, 1, 0, 0]), np.array([0, 1, 0, 0]), np.array([0.8, 0.8, 0.8, 0.1])
    answers = scores.Answers(labels, predicted, confidence, confidence, rank, similarity)
    assert answers.verdicts(0.5, 0.3).tolist() == ["right", "wrong", "not_sure", "none_of_these"]
    assert answers.verdicts(0.5, None).tolist() == ["right", "wrong", "not_sure", "right"]
    assert answers.verdicts(None, 0.3).tolist() == ["right", "wrong", "right", "none_of_these"]
    assert answers.verdicts(0.95, 0.3).tolist() == ["not_sure", "not_sure", "not_sure", "none_of_these"]


def test_of_classes_with_the_same_logit_the_first_one_is_the_answer() -> None:
    answers = scores.Answers.from_logits(np.zeros((3, 3)), np.array([0, 1, 2]))
    assert answers.predicted.tolist() == [0, 0, 0]
    assert answers.rank.tolist() == [0, 1, 2]


def test_batches_of_answers_are_joined_in_order() -> None:
    logits = np.random.default_rng(0).normal(size=(7, 4))
    labels = np.array([0, 1, 2, 3, 0, 1, 2])
    whole = scores.Answers.from_logits(logits, labels, 1.5)
    parts = [scores.Answers.from_logits(logits[part], labels[part], 1.5) for part in (slice(0, 3), slice(3, 7))]
    joined = scores.Answers.join(parts)
    for name in ("labels", "predicted", "confidence", "uncalibrated", "rank"):
        assert getattr(joined, name).tolist() == getattr(whole, name).tolist()


def test_scores_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    logits, labels = rng.normal(size=(60, 5)), rng.integers(0, 5, 60)
    answers = scores.Answers.from_logits(logits, labels)
    rows = scores.per_class(answers, "abcde")
    theirs = precision_recall_fscore_support(labels, answers.predicted)
    for name, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [row[name] for row in rows] == pytest.approx(list(values))
    assert scores.macro_f1(answers, rows) == pytest.approx(f1_score(labels, answers.predicted, average="macro"))
    assert scores.top_accuracy(answers, 2) == pytest.approx(top_k_accuracy_score(labels, logits, k=2))


def test_a_class_that_never_occurs_counts_for_nothing() -> None:
    answers = scores.Answers.from_logits(
        np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]]), np.array([0, 1, 1, 1])
    )
    rows = scores.per_class(answers, CLASSES)
    assert rows[2] == {"class": "c", "precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert scores.macro_f1(answers, rows) == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores.worst_classes_recall(rows) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (1, 1), (7, 8), (92, 100), (0, 40), (5000, 5000)])
def test_the_interval_is_wilsons(hits: int, of: int) -> None:
    theirs = binomtest(hits, of).proportion_ci(method="wilson")
    assert scores.interval(hits, of) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_the_worst_classes_are_ten_of_many() -> None:
    rows = [{"recall": number / 20, "support": 4} for number in range(20)]
    assert scores.worst_classes_recall(rows) == pytest.approx(sum(range(10)) / 20 / 10)


def test_mistakes_are_listed_by_frequency_then_by_class() -> None:
    assert scores.confusions(_answers()) == [(0, 1, 2), (1, 2, 1), (2, 0, 1)]


def test_answers_without_a_mistake_have_no_confusions() -> None:
    answers = scores.Answers.from_logits(np.eye(3), np.arange(3))
    assert scores.confusions(answers) == []
