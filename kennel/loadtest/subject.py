"""What is measured: where requests go, and what is known about who answers them."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Subject:
    """`url` or else `endpoint` is asked. `instance_type` is empty on a machine that is no SageMaker instance.

    `model` has `architecture`, `image_size` (pixels; None: unknown) and what identifies it.
    """

    instance_type: str
    machine: str
    model: dict[str, Any]
    runtime: str
    precision: str
    url: str = ""
    endpoint: str = ""
    instances: int = 1
