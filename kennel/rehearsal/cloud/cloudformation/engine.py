"""CloudFormation's order of things, on top of moto's stacks.

moto creates, changes and removes resources in template order, retries what fails, and has no rollback. Here: in the
order of the references; a change that a type cannot make in place makes a new resource; what was replaced goes last;
after a failure everything is put back, and the stack and its events say why.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.models import Event

from kennel.rehearsal.cloud.cloudformation.template import Json, in_order
from kennel.rehearsal.cloud.response import ApiError

_log = logging.getLogger(__name__)


class ResourceFailed(Exception):
    def __init__(self, logical_id: str, kind: str, reason: str) -> None:
        super().__init__(f"{kind} {logical_id}: {reason}")
        self.logical_id, self.kind, self.reason = logical_id, kind, reason


class Change:
    """One creation or update of a stack: `old` is the resource map that is in force, `new` the one to come."""

    def __init__(self, stack: Any, old: dict[str, Any], new: parsing.ResourceMap) -> None:
        self.stack, self.old, self.new = stack, old, new
        self.undo: list[tuple[str, Any]] = []  # what puts each step back, newest last
        self.replaced: list[tuple[str, Any]] = []

    def run(self) -> None:
        resources = self.new._resource_json_map
        kept: dict[str, Any] = {}
        for name in in_order(resources):
            condition = resources[name].get("Condition")
            if condition and not self.new.lazy_condition_map[condition]:
                continue
            kept[name] = self._bring(name, resources[name])
        gone = [name for name in self.old if name not in kept]
        self.replaced += [(name, self.old[name]) for name in gone]
        for name, resource in reversed(self.replaced):
            self._remove(name, resource)

    def _bring(self, name: str, definition: Json) -> Any:
        kind = definition["Type"]
        try:
            wanted = parsing.clean_json(definition.get("Properties", {}), self.new)
            before = self.old.get(name)
            if before is None or before.cf_resource_type != kind:
                return self._create(name, definition, wanted)
            if before.wanted == wanted:
                return self._keep(name, before)
            return self._change(name, definition, before, wanted)
        except Exception as error:
            reason = error.message if isinstance(error, ApiError) else str(error)
            _log.info("%s %s failed", kind, name, exc_info=True)
            self._event(name, kind, "", "CREATE_FAILED" if name not in self.old else "UPDATE_FAILED", reason)
            raise ResourceFailed(name, kind, reason) from error

    def _create(self, name: str, definition: Json, wanted: Json) -> Any:
        made = parsing.parse_and_create_resource(
            name, definition, self.new, self.new._account_id, self.new._region_name
        )
        if made is None:
            raise ApiError("ValidationError", f"the embedded CloudFormation knows no type {definition['Type']}")
        made.wanted, made.definition = wanted, definition
        self.undo.append((name, lambda: self._remove(name, made)))
        self._event(name, definition["Type"], made.physical_resource_id, "CREATE_COMPLETE")
        if name in self.old:
            self.replaced.append((name, self.old[name]))
        return self._keep(name, made)

    def _change(self, name: str, definition: Json, before: Any, wanted: Json) -> Any:
        """In place where the type can, else by a new resource; an update that fails is tried back with what was."""
        in_place = getattr(before, "change", None)
        if in_place is None or not in_place(wanted):
            return self._create(name, definition, wanted)
        was = before.wanted

        def back() -> None:
            before.change(was)
            before.wanted = was

        self.undo.append((name, back))
        before.wanted, before.definition = wanted, definition
        self._event(name, definition["Type"], before.physical_resource_id, "UPDATE_COMPLETE")
        return self._keep(name, before)

    def _keep(self, name: str, resource: Any) -> Any:
        self.new._parsed_resources[name] = resource
        return resource

    def _remove(self, name: str, resource: Any) -> None:
        if resource.definition.get("DeletionPolicy") == "Retain":
            return
        try:
            remove(self.new, resource)
        except Exception as error:  # as CloudFormation: what cannot be cleaned up is said and left
            _log.warning("%s could not be deleted: %s", name, error)
            self._event(name, resource.cf_resource_type, resource.physical_resource_id, "DELETE_FAILED", str(error))
        else:
            self._event(name, resource.cf_resource_type, resource.physical_resource_id, "DELETE_COMPLETE")

    def back(self) -> None:
        for name, undo in reversed(self.undo):
            try:
                undo()
            except Exception as error:
                _log.warning("%s could not be rolled back: %s", name, error)
                raise

    def _event(self, name: str, kind: str, physical: str, status: str, reason: str | None = None) -> None:
        stack = self.stack
        stack.events.append(Event(stack.stack_id, stack.name, name, physical, kind, status, reason, None))


def remove(resources: parsing.ResourceMap, resource: Any) -> None:
    resources._delete_resource(resource, resource.definition)


def create(stack: Any) -> None:
    """In place of Stack.create_resources: the caller waits (a first deployment is done in seconds)."""
    _run(stack, {}, stack.resource_map, "CREATE", "ROLLBACK")


def update(stack: Any, template: str, role_arn: str | None, parameters: Any, tags: Any) -> None:
    """In place of Stack.update: answers at once, as CloudFormation; the work goes on in a thread."""
    before = (stack.resource_map, stack.template, stack.template_dict, stack.parameters)
    stack.template, stack.parameters = template, dict(parameters or {})
    stack._parse_template()
    try:
        fresh = stack._create_resource_map()
    except Exception:
        stack.resource_map, stack.template, stack.template_dict, stack.parameters = before
        raise
    if tags is not None:
        stack.tags = tags
    old = {name: one for name, one in before[0]._parsed_resources.items() if hasattr(one, "wanted")}
    stack.status = "UPDATE_IN_PROGRESS"
    stack._add_stack_event("UPDATE_IN_PROGRESS", resource_status_reason="User Initiated")
    stack.resource_map = fresh

    def work() -> None:
        _run(stack, old, fresh, "UPDATE", "UPDATE_ROLLBACK", before)

    threading.Thread(target=work, daemon=True).start()


def _run(
    stack: Any, old: dict[str, Any], new: parsing.ResourceMap, verb: str, rollback: str, before: Any = None
) -> None:
    stack.status, stack.stack_status_reason = f"{verb}_IN_PROGRESS", None
    change = Change(stack, old, new)
    try:
        change.run()
        stack.output_map = stack._create_output_map()
        stack.finished_outputs = stack.computed_outputs()
        _end(stack, f"{verb}_COMPLETE")
    except Exception as error:
        stack.stack_status_reason = f"The following resource(s) failed: [{error}]"
        stack._add_stack_event(f"{rollback}_IN_PROGRESS", resource_status_reason=stack.stack_status_reason)
        _roll_back(stack, change, rollback, before)


def _roll_back(stack: Any, change: Change, rollback: str, before: Any) -> None:
    stack.status = f"{rollback}_IN_PROGRESS"
    try:
        change.back()
    except Exception as error:
        stack.stack_status_reason = f"{stack.stack_status_reason}; and the rollback failed: {error}"
        return _end(stack, f"{rollback}_FAILED")
    if before is not None:
        stack.resource_map, stack.template, stack.template_dict, stack.parameters = before
    _end(stack, f"{rollback}_COMPLETE")


def _end(stack: Any, status: str) -> None:
    stack._add_stack_event(status, resource_status_reason=stack.stack_status_reason)
    stack.status = status
