"""What the endpoint answered, believed only after a look."""

import json
from typing import Any, NamedTuple

from classify.errors import BadAnswer

_SLACK = 0.01  # by which float32 probabilities, perhaps rounded, may miss a sum of one
_TIMINGS = ("queue_ms", "decode_ms", "model_ms")
_DAY = 86_400_000.0  # milliseconds


class Answer(NamedTuple):
    """`probabilities[i]` belongs to `classes[i]`; `model` is the package's ARN, or empty where nobody named it.

    `threshold` is the best probability below which the picture shows none of the classes; None: there is none.
    `timings` are the server's own, in milliseconds.
    """

    probabilities: list[float]
    classes: list[str]
    model: str
    threshold: float | None
    timings: dict[str, float]

    @property
    def label(self) -> str | None:
        """The likeliest class (of equals, the earlier one), or None for none of them."""
        best = max(self.probabilities)
        sure = self.threshold is None or best >= self.threshold
        return self.classes[self.probabilities.index(best)] if sure else None

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
    threshold: Any = answer.get("threshold")  # absent where the endpoint still runs an older image
    if threshold is not None and not _is_share(threshold):
        raise _bad("has a threshold that is no number from 0 to 1")
    return Answer(probabilities, classes, model or "", threshold, _timings(answer.get("timings")))


def _timings(value: Any) -> dict[str, float]:
    """Those that are times; the answer is no worse without them, and an older image does not give them."""
    given = value if isinstance(value, dict) else {}
    return {name: given[name] for name in _TIMINGS if _is_time(given.get(name))}


def _are_classes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _are_probabilities(value: Any, count: int) -> bool:
    return (
        isinstance(value, list) and len(value) == count and all(map(_is_share, value)) and abs(sum(value) - 1) <= _SLACK
    )


def _is_share(value: Any) -> bool:
    """The comparison is false for NaN, and needs no conversion that a huge integer would break."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _DAY


def _bad(what: str) -> BadAnswer:
    return BadAnswer(f"The model's answer {what}; look at the endpoint's log.")
