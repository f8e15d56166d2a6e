"""The record of one past run, and its fields as evaluation.json has them."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kennel.errors import KennelError

_Z = statistics.NormalDist().inv_cdf(0.975)  # of a 95 % interval
_WORST = 3  # classes shown
Evaluation = Mapping[str, Any]
BROKEN = (KeyError, TypeError, ValueError, AttributeError)  # what a record of another shape raises


@dataclass(frozen=True, kw_only=True)
class Run:
    """`seconds` of all steps together; `billable_seconds` summed over instances; `cost` in dollars, None: unknown.

    `instance_type` is empty on the operator's own machine. `accuracy`, `low` and `high` are fractions.
    """

    run: str
    launcher: str  # SageMaker, SageMaker spot, EC2 or local
    instance_type: str
    instances: int
    started: str  # ISO 8601, UTC
    images: int
    epochs: int
    mode: str
    seconds: float
    billable_seconds: float
    cost: float | None
    accuracy: float
    low: float
    high: float
    worst: tuple[tuple[str, float], ...]  # class and recall, the worst first
    fingerprint: str

    @property
    def place(self) -> str:
        """`2 x ml.m5.xlarge`, or `this machine`."""
        on = self.instance_type or ("this machine" if self.launcher == "local" else "unknown type")
        return f"{self.instances} x {on}" if self.instance_type or self.instances > 1 else on


@dataclass
class Found:
    """`unread` names records that could not be read; `without_aws` says why the cloud's are missing, or is empty."""

    runs: list[Run] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    without_aws: str = ""
    region: str = ""  # of AWS, where it could be read
    newest_images: int = 0  # of the newest data set, 0: unknown

    @contextmanager
    def reading(self, where: str) -> Iterator[None]:
        """Name `where` as unread when the record read inside the block is missing or broken."""
        try:
            yield
        except (*BROKEN, KennelError):
            self.unread.append(where)


def read_evaluation(file: Path) -> Evaluation:
    """Return evaluation.json; raise KennelError where it is missing or broken."""
    try:
        content: Evaluation = json.loads(file.read_text(encoding="utf-8"))
        return content
    except (OSError, ValueError) as error:
        raise KennelError(f"{file} cannot be read ({error}).") from error


def evaluation_fields(evaluation: Evaluation) -> dict[str, Any]:
    """Return the fields of Run that evaluation.json knows; raise KeyError, TypeError or ValueError for a broken one."""
    model, count = evaluation["model"], int(evaluation["test_samples"])
    settings, data = model.get("hyperparameters") or {}, model.get("data") or {}
    accuracy = float(evaluation["metrics"]["accuracy"]["value"])
    low, high = interval(accuracy, count)
    recalls = sorted((float(one["recall"]), str(one["class"])) for one in evaluation["per_class"] if one["support"])
    return {
        "images": int(data.get("train_images") or 0) + int(data.get("valid_images") or 0) + count,
        "epochs": int(settings.get("epochs") or 0),
        "mode": str(settings.get("mode") or "unknown"),
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "worst": tuple((name, recall) for recall, name in recalls[:_WORST]),
        "fingerprint": str(data.get("fingerprint") or ""),
    }


def accuracy_line(evaluation: Evaluation) -> str:
    """Return the test accuracy with its interval in a few words."""
    accuracy, count = evaluation["metrics"]["accuracy"]["value"], evaluation["test_samples"]
    low, high = interval(accuracy, count)
    return f"accuracy {accuracy:.1%} on {count:,} test images (95 % interval {low:.1%} to {high:.1%})"


def trained_on(evaluation: Evaluation) -> tuple[str, int, float]:
    """Return instance type, instances and seconds of the training itself, as the model remembers them."""
    about = evaluation["model"].get("trained_on") or {}
    return str(about.get("instance_type") or ""), int(about.get("instances") or 1), float(about.get("seconds") or 0)


def interval(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share seen on `count` images (Wilson 1927)."""
    if count <= 0:
        return 0.0, 1.0
    z2 = _Z**2
    middle, half = share + z2 / (2 * count), _Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, (middle - half) / (1 + z2 / count)), min(1.0, (middle + half) / (1 + z2 / count))
