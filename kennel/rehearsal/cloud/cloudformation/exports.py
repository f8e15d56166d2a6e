"""Exports of stacks: what another stack imports can neither change nor go, which decides about second deployments."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Stack, cloudformation_backends

from kennel.rehearsal.cloud.clients import ACCOUNT, REGION

Outputs = list[dict[str, Any]] | None


def install() -> None:
    """Check the outputs of a stack whenever they are computed anew; to be called once they are."""
    values: dict[str, Any] = {"exported": {}, "computed_outputs": _checked(Stack.computed_outputs)}  # type: ignore[attr-defined]
    for name, value in values.items():
        setattr(Stack, name, value)


def _checked(compute: Callable[[Any], Outputs]) -> Callable[[Any], Outputs]:
    def computed_outputs(stack: Any) -> Outputs:
        outputs = compute(stack)
        now = _exports(stack, outputs)
        for name, value in stack.exported.items():
            if now.get(name) != value and (user := next(_importers(name), None)):
                verb = "updated" if name in now else "deleted"
                raise ValidationError(message=f"Export {name} cannot be {verb} as it is in use by {user}")
        stack.exported = now
        return outputs

    return computed_outputs


def export_in_use(stack: Any) -> str:
    """Return why the stack cannot be deleted, in CloudFormation's words; empty where nothing imports from it."""
    for name in stack.exported:
        if user := next(_importers(name), None):
            return f"Delete canceled. Cannot delete export {name} as it is in use by {user}."
    return ""


def _exports(stack: Any, outputs: Outputs) -> dict[str, str]:
    values = {one["OutputKey"]: str(one["OutputValue"]) for one in outputs or []}
    declared = stack.template_dict.get("Outputs") or {}
    return {one["Export"]["Name"]: values[key] for key, one in declared.items() if "Export" in one and key in values}


def _importers(export: str) -> Iterator[str]:
    """Yield the names of the stacks whose templates import `export`."""
    imported = f'"Fn::ImportValue": {json.dumps(export)}'
    for stack in cloudformation_backends[ACCOUNT][REGION].stacks.values():
        if imported in json.dumps(stack.template_dict):
            yield stack.name
