"""What a template says before anything is made: what needs what, and which parameters it takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from typing import Any

from moto.cloudformation.exceptions import ValidationError

Json = Any


def references(value: Json) -> Iterator[str]:
    """Every logical id (or parameter) that `value` mentions."""
    if isinstance(value, dict):
        if isinstance(name := value.get("Ref"), str):
            yield name
        if attribute := value.get("Fn::GetAtt"):
            yield attribute[0] if isinstance(attribute, list) else attribute.partition(".")[0]
        if text := value.get("Fn::Sub"):
            yield from re.findall(r"\${([^!.}]+)", text if isinstance(text, str) else text[0])
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def in_order(resources: dict[str, Json]) -> list[str]:
    """Logical ids, each after all that it needs."""
    graph: dict[str, set[str]] = {}
    for name, resource in resources.items():
        depends = resource.get("DependsOn", [])
        needs = {*([depends] if isinstance(depends, str) else depends), *references(resource.get("Properties", {}))}
        graph[name] = needs & set(resources)
    return list(TopologicalSorter(graph).static_order())


def check_parameters(template: Json, given: dict[str, Any]) -> None:
    """AllowedPattern and AllowedValues, which moto does not look at; raises moto's ValidationError."""
    for name, slot in template.get("Parameters", {}).items():
        value = str(given.get(name, slot.get("Default", "")))
        pattern, allowed = slot.get("AllowedPattern"), slot.get("AllowedValues")
        if (pattern and not re.fullmatch(pattern, value)) or (allowed and value not in map(str, allowed)):
            why = slot.get("ConstraintDescription", f"must match {pattern or allowed}")
            raise ValidationError(message=f"Parameter {name} failed to satisfy constraint: {why}")
