"""Checks a document that the code wrote against its JSON Schema in docs/contracts."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

_SCHEMAS = Path(__file__).parents[1] / "docs" / "contracts"


@cache
def schema(name: str) -> dict[str, Any]:
    """The JSON Schema docs/contracts/`name`.schema.json, itself valid."""
    found: dict[str, Any] = json.loads((_SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(found)
    return found


def validate(name: str, document: Any) -> None:
    """Fail with every place where `document` differs from docs/contracts/`name`.schema.json."""
    errors = Draft202012Validator(schema(name)).iter_errors(document)
    assert not [f"{error.json_path}: {error.message[:300]}" for error in errors]
