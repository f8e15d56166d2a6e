"""Settings that check themselves: a field says its bounds, the base class holds it to them."""

import re
from dataclasses import dataclass, field, fields
from typing import Any


class SettingsError(ValueError):
    """A setting breaks a rule; the text names setting, rule and value."""


def require(holds: bool, rule: str, value: object) -> None:
    """Raises SettingsError with the rule and the value received unless it holds."""
    if not holds:
        raise SettingsError(f"{rule}; received {value!r}")


def between(low: float, high: float, *, default: float | None) -> Any:
    """A field with inclusive bounds, in the field's own unit; None is let through where it is the field's type."""
    return field(default=default, metadata={"bounds": (low, high)})


def like(pattern: str, what: str, *, default: str | None) -> Any:
    """A text field that must match the whole pattern; `what` describes it in the error."""
    return field(default=default, metadata={"pattern": pattern, "what": what})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: checks each field that `between` or `like` made."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            name = f"{type(self).__name__}.{each.name}"
            if value is None and "None" in str(each.type):
                continue
            if "bounds" in each.metadata:
                _check_bounds(name, value, *each.metadata["bounds"])
            if "pattern" in each.metadata:
                fits = isinstance(value, str) and re.fullmatch(each.metadata["pattern"], value) is not None
                require(fits, f"{name} must be {each.metadata['what']}", value)


def _check_bounds(name: str, value: object, low: float, high: float) -> None:
    kinds = (int, float) if isinstance(low, float) else (int,)
    number = isinstance(value, kinds) and not isinstance(value, bool)
    rule = f"{name} must be a {'number' if float in kinds else 'whole number'} from {low} to {high}"
    require(number and low <= value <= high, rule, value)  # type: ignore[operator]
