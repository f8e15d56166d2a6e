"""The price of an instance hour, read from the one table that the command and the evaluation's report share."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.errors import KennelError

_TABLE = Path(__file__).resolve().parent.parent / "training" / "prices.json"
_HOUR = 3600  # seconds


@dataclass(frozen=True)
class Prices:
    """On-demand prices of one region. `per_hour`: dollars by instance type, as SageMaker or EC2 writes it."""

    region: str
    date: str
    per_hour: Mapping[str, float]

    def cost(self, instance_type: str, instances: int, seconds: float) -> float | None:
        """Return the dollars for `seconds` on that many instances, or None where the type has no price here."""
        price = self.per_hour.get(instance_type)
        return None if price is None else price * instances * seconds / _HOUR

    def note(self, region: str) -> str:
        """Return one sentence on whose prices these are, and that those of `region` may differ (empty: no region)."""
        elsewhere = "" if region in ("", self.region) else f"; those of {region} may differ"
        return f"Prices: {self.region}, on demand, as of {self.date}{elsewhere}."


def read_prices(file: Path = _TABLE) -> Prices:
    """Read the table; raise KennelError for one that is missing or broken."""
    try:
        table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        per_hour = {str(name): float(price) for name, price in table["per_hour"].items()}
        return Prices(str(table["region"]), str(table["date"]), per_hour)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KennelError(f"The table of prices {file} cannot be read ({type(error).__name__}: {error}).") from error


def total(costs: Iterable[float | None]) -> float | None:
    """Return the sum, or None where one of them is unknown."""
    found = list(costs)
    return None if None in found else sum(cost for cost in found if cost is not None)


def dollars(amount: float | None) -> str:
    """Return an amount for people: `$1,234`, `$12.34`, `$0.0123`, or `unknown`."""
    if amount is None:
        return "unknown"
    if amount >= 1000:
        return f"${amount:,.0f}"
    return f"${amount:.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"
