from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CoverageRow:
    type: str
    logical_id: str
    status: str
    note: str


def cover(cloud: Any, stack: Any) -> list[CoverageRow]:
    return []
