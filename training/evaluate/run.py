"""The Evaluate job: measures the exported model, the very files that would be served, on the test split."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from training.calibration import Flags, coverage_and_precision, expected_calibration_error
from training.drift.observe import Observations, observations, write_reference
from training.evaluate import artifact, scores
from training.evaluate.page import render
from training.paths import Paths
from training.split import Split, classes_in_turn, load_split

VERDICTS = ("right", "wrong", "not_sure", "none_of_these")
SAMPLES = 24  # predictions shown
PAIRS = 20  # confusions listed
_PROBES, _PROBE_BYTES = 32, 1_000_000  # photos, and of each: all fit into the function that sends them
_OF_MODEL = ("architecture", "hyperparameters", "data", "seed", "trained_on", "history", "trials")


def evaluate(paths: Paths) -> None:
    """Measure `model.tar.gz` on the test split; write evaluation.json, report.html, the probes and drift-reference.npz.

    Raise TrainingError with one sentence if the model or the split cannot be used.
    """
    split = load_split(paths.processing_input("test"))
    with tempfile.TemporaryDirectory() as folder:
        provenance = artifact.unpack(paths.processing_input("model") / "model.tar.gz", Path(folder))
        model = artifact.load(Path(folder))
        seen: list[Observations] = []
        answers = artifact.classify(
            model, split, lambda batch, outputs: seen.append(observations(model, batch, outputs))
        )
    output = paths.processing_output("evaluation")
    output.mkdir(parents=True, exist_ok=True)
    write_reference(Observations.join(seen), answers["float32"].labels, output)
    report = summarize(answers, split, model, provenance)
    page = render(report, answers["float32"], split, model.record)
    # A class's name may hold bytes that are not UTF-8.
    (output / "report.html").write_text(page, encoding="utf-8", errors="replace")
    verdicts = answers["float32"].verdicts(model.threshold, model.known_threshold)
    write_probes(answers["float32"], np.isin(verdicts, ("right", "wrong")), split, output / "probes")
    # Written last: where evaluation.json is, all else is too.
    (output / "evaluation.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(
        "accuracy by precision:",
        " ".join(f"{name}={one['accuracy']:.6f}" for name, one in report["precisions"].items()),
    )
    print(" ".join(f"test_{name}={metric['value']:.6f}" for name, metric in report["metrics"].items()), flush=True)


def summarize(
    found: Mapping[str, scores.Answers], split: Split, model: artifact.Model, provenance: artifact.Provenance
) -> dict[str, Any]:
    """Return the content of evaluation.json; `found` are the answers by precision, of which float32's are analysed."""
    answers, precisions = found["float32"], _precisions(found)
    verdicts = answers.verdicts(model.threshold, model.known_threshold)
    rows = scores.per_class(answers, split.classes)
    pairs = scores.confusions(answers)[:PAIRS]
    return {
        "format": 1,
        "metrics": {name: {"value": value} for name, value in _metrics(answers, rows, precisions).items()},
        "test_samples": len(split),
        "classes": list(split.classes),
        "per_class": rows,
        "confusion_pairs": [
            {"true": split.classes[true], "predicted": split.classes[predicted], "count": count}
            for true, predicted, count in pairs
        ],
        "abstain": _abstain(answers, model.threshold),
        "known": _known(found, model.known_threshold, split),
        "verdicts": {name: int((verdicts == name).sum()) for name in VERDICTS},
        "samples": _samples(answers, split),
        "model": {key: model.record.get(key) for key in _OF_MODEL},
        "precisions": precisions,
        "passport": asdict(provenance),
    }


def _precisions(found: Mapping[str, scores.Answers]) -> dict[str, dict[str, float]]:
    hits = {precision: (int(answers.right.sum()), len(answers)) for precision, answers in found.items()}
    return {
        name: {"accuracy": hit / of, "accuracy_lower": scores.interval(hit, of)[0]} for name, (hit, of) in hits.items()
    }


def _metrics(
    answers: scores.Answers, rows: list[dict[str, Any]], precisions: dict[str, dict[str, float]]
) -> dict[str, float]:
    """Return the metrics, float32's but for `served_accuracy_lower`: the least of all precisions."""
    right = answers.right
    return {
        **precisions["float32"],
        "served_accuracy_lower": min(one["accuracy_lower"] for one in precisions.values()),
        "top5_accuracy": scores.top_accuracy(answers, 5),
        "macro_f1": scores.macro_f1(answers, rows),
        "worst_classes_recall": scores.worst_classes_recall(rows),
        "expected_calibration_error": expected_calibration_error(answers.confidence, right),
        "uncalibrated_error": expected_calibration_error(answers.uncalibrated, right),
    }


def _abstain(answers: scores.Answers, threshold: float | None) -> dict[str, float | None] | None:
    """Return what the model's threshold does on the test split; `precision` is None if it lets no answer through."""
    if threshold is None:
        return None
    coverage, precision = coverage_and_precision(answers.confidence, answers.right, threshold)
    return {"threshold": threshold, "coverage": coverage, "precision": precision}


def _known(found: Mapping[str, scores.Answers], threshold: float | None, split: Split) -> dict[str, Any] | None:
    """Return the share of the test images that count as known, by precision, and the classes of which fewest do."""
    if threshold is None:
        return None
    known = {name: answers.similarity >= threshold for name, answers in found.items()}
    labels = found["float32"].labels
    images, kept = np.bincount(labels), np.bincount(labels, known["float32"])
    shares = sorted((float(kept[label] / images[label]), split.classes[label]) for label in np.flatnonzero(images))
    return {
        "threshold": threshold,
        "kept": {name: float(flags.mean()) for name, flags in known.items()},
        "least_kept": [{"class": name, "kept": share} for share, name in shares[: scores.WORST] if share < 1],
    }


def _samples(answers: scores.Answers, split: Split) -> list[dict[str, Any]]:
    """Return some answers, evenly spread over the split and so over its classes."""
    chosen = np.unique(np.linspace(0, len(split) - 1, SAMPLES).round().astype(int)).tolist()
    return [
        {
            "name": split.samples[index].name,
            "label": split.classes[split.samples[index].label],
            "predicted": split.classes[int(answers.predicted[index])],
            "probability": float(answers.confidence[index]),
        }
        for index in chosen
    ]


def write_probes(answers: scores.Answers, answered: Flags, split: Split, folder: Path) -> None:
    """Write probes.json and its photos into `folder`: of each class in turn the one that the model is surest of.

    Only photos that are known and sure (`answered`) are taken.

    A release sends them to the new fleet (lambda/probe): a model that answers otherwise is rolled back. Whether the
    label is the true one does not matter; that the model is sure makes it the same in every precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    small = [index for index in np.flatnonzero(answered).tolist() if split.samples[index].size <= _PROBE_BYTES]
    surest = sorted(small, key=lambda index: -answers.confidence[index])
    probes = []
    for number, index in enumerate(classes_in_turn(surest, answers.predicted.tolist())[:_PROBES]):
        name = f"{number:02}.image"
        (folder / name).write_bytes(split.read(index))
        probes.append({"file": name, "label": split.classes[int(answers.predicted[index])]})
    (folder / "probes.json").write_text(json.dumps({"format": 1, "probes": probes}, indent=1), encoding="utf-8")
