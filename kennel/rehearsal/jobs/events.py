"""What a running pipeline tells of itself, and how it fails."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class StepEvent:
    """Something happened in a step. `detail`: the log line, the outcome or the reason; `metrics`: of one log line.

    `job` tells apart what runs within one step: the trial of a tuning job, the host of a larger one; else empty. A
    `trial` event ends a trial: its objective in `metrics` (nan: none), what was chosen in `detail`.
    """

    step: str
    kind: Literal["started", "log", "metric", "trial", "finished", "failed"]
    detail: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    job: str = ""


OnEvent = Callable[[StepEvent], None]


class JobFailed(RuntimeError):
    """A step failed; the text becomes its FailureReason."""


class Closed(JobFailed):
    """The rehearsal ends: what runs is killed at once."""


class DefinitionError(JobFailed):
    """The pipeline's definition or its parameters cannot work; the text says which part and why."""
