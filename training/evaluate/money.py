"""What a training run cost, from the table of prices that the operator's command reads too."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_TABLE = Path(__file__).resolve().parents[1] / "prices.json"
_HOUR = 3600  # seconds


def cost(trained_on: Mapping[str, Any], table: Path = _TABLE) -> tuple[str, str]:
    """Return the amount and one sentence on it; the amount says why where there is none."""
    kind, seconds = trained_on.get("instance_type"), trained_on.get("seconds")
    if not kind:
        return "no charge", "The run names no instance type: it was local, and cost nothing but its time."
    prices = json.loads(table.read_text(encoding="utf-8")) if table.is_file() else {}
    price = prices.get("per_hour", {}).get(kind)
    if price is None or seconds is None:
        return "unknown", f"The table of prices has none for {kind}."
    amount = price * seconds * trained_on.get("instances", 1) / _HOUR
    text = f"${amount:.2f}" if amount >= 0.1 else f"${amount:.4f}"
    return text, (
        f"The program's own time at the on-demand price of {prices['region']}, {prices['date']}: "
        f"{price:g} {prices['currency']} an hour. Starting an instance comes on top; spot costs less."
    )
