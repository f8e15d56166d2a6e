"""In which forms and precisions the model may be served, for the report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NAMES = {"onnx": "float32, ONNX", "pt2": "float32, torch.export"}


@dataclass(frozen=True)
class Form:
    """`accuracy` and its interval's lower end are of the test split, `agreement` and `change` of the validation split,
    against float32 in torch; None where nobody measured them."""

    name: str
    accuracy: float | None
    lower: float | None
    agreement: float | None
    change: float | None
    offered: str


def forms(exports: Mapping[str, Mapping[str, Any]], precisions: Mapping[str, Mapping[str, float]]) -> list[Form]:
    """Return a row for each: `exports` is model.json's (empty in an old one), `precisions` evaluation.json's."""
    return [
        Form(
            _NAMES.get(name, name),
            precisions.get(name, {}).get("accuracy"),
            precisions.get(name, {}).get("accuracy_lower"),
            exports.get(name, {}).get("agreement"),
            exports.get(name, {}).get("largest_change"),
            _offered(name, exports.get(name, {}), name in precisions),
        )
        for name in dict.fromkeys(["float32", "bfloat16", *exports])
    ]


def _offered(name: str, export: Mapping[str, Any], measured: bool) -> str:
    if name == "bfloat16":
        return "where the processor multiplies it" + ("" if measured else ", and this one did not")
    return "yes" if export.get("accepted", name == "float32") else f"no: {export.get('reason', 'unknown')}"
