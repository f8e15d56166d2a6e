"""Which steps there are and in what order they can run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from kennel.rehearsal.jobs.events import DefinitionError

_REFERENCE = re.compile(r"Steps\.([A-Za-z0-9_-]+)")
_BRANCHES = {"IfSteps": True, "ElseSteps": False}


@dataclass(frozen=True)
class Planned:
    """One step. `guards`: the condition step it stands in and the outcome that it waits for."""

    step: Mapping[str, Any]
    guard: tuple[str, bool] | None
    needs: frozenset[str]

    @property
    def name(self) -> str:
        return str(self.step["Name"])


def plan(definition: Mapping[str, Any]) -> list[Planned]:
    """All steps, those inside conditions too, each after what it depends on, else as written.

    Raises DefinitionError for a name that is used twice, a dependency that does not exist, or a circle.
    """
    found = list(_flatten(definition.get("Steps", []), None))
    steps = {item.name: item for item in found}
    if len(steps) < len(found):
        names = [item.name for item in found]
        raise DefinitionError(f"Two steps are named {next(name for name in names if names.count(name) > 1)!r}.")
    for item in found:
        if missing := sorted(item.needs - set(steps)):
            raise DefinitionError(f"The step {item.name} depends on {missing[0]}, which does not exist.")
    try:
        order = TopologicalSorter({item.name: sorted(item.needs) for item in found}).static_order()
        return [steps[name] for name in order]
    except CycleError as error:
        raise DefinitionError(f"Steps wait for each other in a circle: {' -> '.join(error.args[1])}.") from None


def _flatten(steps: Sequence[Mapping[str, Any]], guard: tuple[str, bool] | None) -> Iterator[Planned]:
    for step in steps:
        arguments = step.get("Arguments", {})
        own = {key: value for key, value in arguments.items() if not (step["Type"] == "Condition" and key in _BRANCHES)}
        needs = set(step.get("DependsOn", [])) | set(_references(own))
        yield Planned(step, guard, frozenset(needs | ({guard[0]} if guard else set())))
        if step["Type"] == "Condition":
            for key, outcome in _BRANCHES.items():
                yield from _flatten(arguments.get(key, []), (step["Name"], outcome))


def _references(value: Any) -> Iterator[str]:
    """Step names in `Get` expressions (and in the plain text of a property file's path)."""
    for match in _REFERENCE.finditer(json.dumps(value)):
        yield match[1]
