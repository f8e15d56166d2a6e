"""Photos of the test split with the labels that the evaluated model gave them.

A release sends them to the new fleet (lambda/probe): a model that answers otherwise than it was evaluated is rolled
back. docs/contracts/evaluation.md has the format.
"""

import json
from pathlib import Path

from training.evaluate.scores import Answers
from training.split import Split

MOST = 32
_BYTES = 1_000_000  # of a photo: all of them fit into the function that sends them


def write(answers: Answers, split: Split, folder: Path) -> None:
    """Write the photos and probes.json into `folder`: of each class in turn the one that the model is surest of.

    Whether the label is the true one does not matter; that the model is sure makes it the same in every precision.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probes = []
    for number, index in enumerate(_chosen(answers, split)):
        name = f"{number:02}.image"
        (folder / name).write_bytes(split.read(index))
        probes.append({"file": name, "label": split.classes[int(answers.predicted[index])]})
    (folder / "probes.json").write_text(json.dumps({"format": 1, "probes": probes}, indent=1), encoding="utf-8")


def _chosen(answers: Answers, split: Split) -> list[int]:
    """Return the indices of at most MOST small photos, those of different predicted classes first."""
    small = [index for index, sample in enumerate(split.samples) if sample.size <= _BYTES]
    surest = sorted(small, key=lambda index: -answers.confidence[index])
    turns: dict[int, int] = {}  # by class: how many of it came before
    order = []
    for index in surest:
        label = int(answers.predicted[index])
        order.append((turns.get(label, 0), index))
        turns[label] = turns.get(label, 0) + 1
    return [index for _, index in sorted(order, key=lambda one: one[0])][:MOST]
