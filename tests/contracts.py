"""Checks a document that the code wrote against its JSON Schema in docs/contracts."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

_SCHEMAS = Path(__file__).parents[1] / "docs" / "contracts"


def validate(name: str, document: Any) -> None:
    """Fail with every place where `document` differs from docs/contracts/`name`.schema.json."""
    schema = json.loads((_SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    errors = Draft202012Validator(schema).iter_errors(document)
    assert not [f"{error.json_path}: {error.message[:300]}" for error in errors]
