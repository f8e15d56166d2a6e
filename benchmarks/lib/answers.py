"""Whether an answer is one, whoever gave it."""

import json
from typing import Any

_SLACK = 0.01  # by which rounded probabilities may miss a sum of one


def best(body: bytes, outputs: int, classes: int) -> str:
    """The likeliest class; raises ValueError where `body` does not hold `outputs` probabilities of `classes` classes.

    Either {"probabilities": [...], "classes": [...]} or, as TorchServe answers, an object from class to probability.
    """
    found: Any = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("the answer is no object")
    pairs = zip(found["classes"], found["probabilities"], strict=True) if "classes" in found else found.items()
    odds = dict(pairs)
    if len(odds) != outputs or not all(isinstance(p, float) and 0 <= p <= 1 for p in odds.values()):
        raise ValueError(f"the answer has not {outputs} probabilities")
    total = sum(odds.values())
    if total > 1 + _SLACK or (outputs == classes and total < 1 - _SLACK):
        raise ValueError(f"the probabilities sum to {total:.3f}")
    return str(max(odds, key=lambda name: odds[name]))
