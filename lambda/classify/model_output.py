"""Reads the inference server's answer, and believes it only if it can be true."""

import json
from typing import Any, NamedTuple, Self

from classify.errors import BadAnswer

_SLACK = 0.01  # by which float32 probabilities, perhaps rounded, may miss a sum of one
_TIMINGS = ("queue_ms", "decode_ms", "model_ms")
_RESEMBLANCE = ("score", "threshold", "is_known")
_DAY = 86_400_000.0  # milliseconds
_MOST = 1.01  # a cosine, rounded


class ModelOutput(NamedTuple):
    """One image's probabilities: `probabilities[i]` belongs to `classes[i]`.

    `model` is the model package's ARN, or empty where the server does not know it. `threshold` is the probability below
    which even the best class does not count, None where there is none. `known` says whether the picture resembles what
    the model was trained on (score, threshold, is_known), None where the server cannot tell. `timings` are the server's
    own, in milliseconds.
    """

    probabilities: list[float]
    classes: list[str]
    model: str
    threshold: float | None
    known: dict[str, Any] | None
    timings: dict[str, float]

    @property
    def verdict(self) -> str:
        """class; none_of_these for a picture that is not known; not_sure for one of no probability that counts."""
        if self.known and not self.known["is_known"]:
            return "none_of_these"
        is_sure = self.threshold is None or max(self.probabilities) >= self.threshold
        return "class" if is_sure else "not_sure"

    @property
    def label(self) -> str | None:
        """The likeliest class (of equals, the earlier one), or None where the verdict is no class."""
        return self.classes[self.probabilities.index(max(self.probabilities))] if self.verdict == "class" else None

    def predictions(self, top_k: int) -> list[dict[str, Any]]:
        """Return the `top_k` likeliest classes, the likeliest first; of equals, the earlier one."""
        best = sorted(zip(self.probabilities, self.classes, strict=True), key=lambda pair: -pair[0])[:top_k]
        return [{"label": label, "probability": probability} for probability, label in best]

    @classmethod
    def of_json(cls, body: bytes) -> Self:
        """Return what the body says. Raise BadAnswer."""
        try:
            answer: Any = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadAnswer("The model's answer is not JSON; look at the endpoint's log.") from error
        if not isinstance(answer, dict):
            raise _bad("is no object")
        classes: Any = answer.get("classes")
        probabilities: Any = answer.get("probabilities")
        model: Any = answer.get("model")
        threshold: Any = answer.get("threshold")  # an older image gives none
        if not _are_classes(classes):
            raise _bad("names no classes, or one of them twice")
        if not _are_probabilities(probabilities, len(classes)):
            raise _bad(f"does not have {len(classes)} probabilities that sum to one")
        if not isinstance(model, str | None):
            raise _bad("names its model by something other than text")
        if not (threshold is None or _is_probability(threshold)):
            raise _bad("has a threshold that is no number from 0 to 1")
        known: Any = answer.get("known")  # nor this
        if not (known is None or _is_resemblance(known)):
            raise _bad("says of the picture that it is known, or not, without a score to follow from")
        return cls(
            probabilities,
            classes,
            model or "",
            threshold,
            known and {name: known[name] for name in _RESEMBLANCE},
            _timings(answer.get("timings")),
        )


def _is_resemblance(value: Any) -> bool:
    """Return whether it holds a score, a threshold and the verdict that follows from them."""
    if not isinstance(value, dict):
        return False
    score: Any = value.get("score")
    threshold: Any = value.get("threshold")
    are_similarities = all(_is_number(one) and -_MOST <= one <= _MOST for one in (score, threshold))
    return are_similarities and value.get("is_known") is (score >= threshold)


def _timings(value: Any) -> dict[str, float]:
    """Return those that are times: the answer is no worse without them, and an older image does not give them."""
    given = value if isinstance(value, dict) else {}
    return {name: given[name] for name in _TIMINGS if _is_number(given.get(name)) and 0 <= given[name] < _DAY}


def _are_classes(value: Any) -> bool:
    is_list = isinstance(value, list) and len(value) > 0 and all(isinstance(name, str) for name in value)
    return is_list and len(set(value)) == len(value)


def _are_probabilities(value: Any, count: int) -> bool:
    is_list = isinstance(value, list) and len(value) == count and all(map(_is_probability, value))
    return is_list and abs(sum(value) - 1) <= _SLACK


def _is_probability(value: Any) -> bool:
    """The comparison is false for NaN, and needs no conversion that a huge integer would break."""
    return _is_number(value) and 0 <= value <= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bad(what: str) -> BadAnswer:
    return BadAnswer(f"The model's answer {what}; look at the endpoint's log.")
