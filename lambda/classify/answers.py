"""What the endpoint answered, believed only after a look."""

import json
from dataclasses import dataclass
from typing import Any

from classify.errors import BadAnswer

_SLACK = 0.01  # by which float32 probabilities, perhaps rounded, may miss a sum of one


@dataclass(frozen=True)
class Answer:
    """`probabilities[i]` belongs to `classes[i]`; `model` is the package's ARN, or empty where nobody named it."""

    probabilities: list[float]
    classes: list[str]
    model: str

    def predictions(self, top_k: int) -> list[dict[str, Any]]:
        """The likeliest first; of equals, the earlier class."""
        best = sorted(zip(self.probabilities, self.classes, strict=True), key=lambda pair: -pair[0])[:top_k]
        return [{"label": label, "probability": probability} for probability, label in best]


def parse(body: bytes) -> Answer:
    """Raises BadAnswer."""
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadAnswer("The model's answer is not JSON; look at the endpoint's log.") from error
    if not isinstance(answer, dict):
        raise _bad("is no object")
    classes: Any = answer.get("classes")
    probabilities: Any = answer.get("probabilities")
    model: Any = answer.get("model")
    if not _are_classes(classes):
        raise _bad("names no classes, or one of them twice")
    if not _are_probabilities(probabilities, len(classes)):
        raise _bad(f"does not have {len(classes)} probabilities that sum to one")
    if not isinstance(model, str | None):
        raise _bad("names its model by something other than text")
    return Answer(probabilities, classes, model or "")


def _are_classes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _are_probabilities(value: Any, count: int) -> bool:
    """The comparison is false for NaN, and needs no conversion that a huge integer would break."""
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(p, int | float) and not isinstance(p, bool) and 0 <= p <= 1 for p in value)
        and abs(sum(value) - 1) <= _SLACK
    )


def _bad(what: str) -> BadAnswer:
    return BadAnswer(f"The model's answer {what}; look at the endpoint's log.")
