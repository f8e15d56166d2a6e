"""The Evaluate job: how good is the model that would be served?"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluate import network, scores
from training.evaluate.figures import draw
from training.paths import Paths
from training.split import Split, load_split

SAMPLES = 24  # predictions shown


def evaluate(paths: Paths) -> None:
    """Measure `model.tar.gz` on the test split; write evaluation.json and figures.

    Raises TrainingError with one sentence when either input is unusable.
    """
    split = load_split(paths.processing_input("test"))
    with tempfile.TemporaryDirectory() as folder:
        network.unpack(paths.processing_input("model") / "model.tar.gz", Path(folder))
        loaded = network.load(Path(folder))
        answers = network.answer(loaded, split)
    output = paths.processing_output("evaluation")
    output.mkdir(parents=True, exist_ok=True)
    report = summarize(answers, split)
    report["model"] = {key: loaded.record.get(key) for key in ("architecture", "hyperparameters", "data", "seed")}
    draw(output / "figures", scores.confusion(answers), report["per_class"], scores.calibration(answers))
    # Last: whoever sees evaluation.json sees everything.
    (output / "evaluation.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(" ".join(f"test_{name}={metric['value']:.6f}" for name, metric in report["metrics"].items()), flush=True)


def summarize(answers: scores.Answers, split: Split) -> dict[str, Any]:
    """Return the content of evaluation.json."""
    matrix = scores.confusion(answers)
    metrics = {
        "accuracy": float(answers.right.mean()),
        "top5_accuracy": scores.top_accuracy(answers, 5),
        "macro_f1": scores.macro_f1(matrix),
        "expected_calibration_error": scores.expected_calibration_error(scores.calibration(answers)),
    }
    return {
        "format": 1,
        "metrics": {name: {"value": value} for name, value in metrics.items()},
        "test_samples": len(split),
        "classes": list(split.classes),
        "per_class": scores.per_class(matrix, split.classes),
        "confusion_pairs": scores.confusion_pairs(matrix, split.classes),
        "samples": _samples(answers, split),
    }


def _samples(answers: scores.Answers, split: Split) -> list[dict[str, Any]]:
    """Return answers spread evenly over the split, so over its classes."""
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
