"""CloudFormation's order, replacement and rollback, on top of moto's stacks.

moto creates, changes and removes resources in template order, retries what fails, and has no rollback. Here they are
created in the order of their references; a change that a type does not make in place creates a new resource; what was
replaced is deleted last; after a failure everything is undone, and the stack and its events say why.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from typing import Any

from moto.cloudformation import parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import Event

from kennel.rehearsal.cloud.api import ApiError

Json = Any
_log = logging.getLogger(__name__)


def check_parameters(template: Json, given: dict[str, Any]) -> None:
    """Raise moto's ValidationError for a value against AllowedPattern or AllowedValues, which moto does not check."""
    for name, declared in template.get("Parameters", {}).items():
        value = str(given.get(name, declared.get("Default", "")))
        pattern, allowed = declared.get("AllowedPattern"), declared.get("AllowedValues")
        if (pattern and not re.fullmatch(pattern, value)) or (allowed and value not in map(str, allowed)):
            why = declared.get("ConstraintDescription", f"must match {pattern or allowed}")
            raise ValidationError(message=f"Parameter {name} failed to satisfy constraint: {why}")


def creation_order(resources: dict[str, Json]) -> list[str]:
    """Return the logical ids, each after all that it refers to or depends on."""
    graph: dict[str, set[str]] = {}
    for name, resource in resources.items():
        depends = resource.get("DependsOn", [])
        named = _references([resource.get("Properties"), resource.get("UpdatePolicy")])
        before = {*([depends] if isinstance(depends, str) else depends), *named}
        graph[name] = before & set(resources)
    return list(TopologicalSorter(graph).static_order())


def _references(value: Json) -> Iterator[str]:
    """Yield every logical id (or parameter) that `value` mentions."""
    if isinstance(value, dict):
        if isinstance(name := value.get("Ref"), str):
            yield name
        if attribute := value.get("Fn::GetAtt"):
            yield attribute[0] if isinstance(attribute, list) else attribute.partition(".")[0]
        if text := value.get("Fn::Sub"):
            yield from re.findall(r"\${([^!.}]+)", text if isinstance(text, str) else text[0])
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


class ResourceFailed(Exception):
    """A resource could not be created or updated; the message names it with the reason."""


class Change:
    """One creation or update of a stack: `old` is the resource map in force, `new` the one to come."""

    def __init__(self, stack: Any, old: dict[str, Any], new: parsing.ResourceMap) -> None:
        self.stack, self.old, self.new = stack, old, new
        self._changed: list[tuple[str, Callable[[], None]]] = []  # what changes each resource back
        self._created: list[tuple[str, Any]] = []
        self._replaced: list[tuple[str, Any]] = []

    def run(self) -> None:
        """Create and change what `new` says, and delete nothing; raise ResourceFailed for the first that fails."""
        resources, active = self.new._resource_json_map, self._active()
        for name in creation_order(resources):
            if name in active:
                self.new._parsed_resources[name] = self._create_or_change(name, active[name])

    def clean_up(self) -> None:
        """Delete what was replaced and what the template no longer has, newest first."""
        active = self._active()
        gone = [name for name in self.old if name not in active]
        for name, resource in reversed([*self._replaced, *((name, self.old[name]) for name in gone)]):
            self._remove(name, resource)

    def roll_back(self) -> None:
        """Change back what was changed, in its order, then delete what was created; raise what a change raises."""
        for name, undo in self._changed:
            try:
                undo()
            except Exception as error:
                _log.warning("%s could not be rolled back: %s", name, error)
                raise
        for name, resource in reversed(self._created):
            self._remove(name, resource)

    def _active(self) -> dict[str, Json]:
        """Return the resources of the new template whose condition is true."""
        resources, conditions = self.new._resource_json_map, self.new.lazy_condition_map
        return {name: one for name, one in resources.items() if conditions.get(one.get("Condition"), True)}

    def _create_or_change(self, name: str, definition: Json) -> Any:
        """Return the resource as `definition` describes it: the existing one, changed in place, or a new one."""
        kind = definition["Type"]
        try:
            properties = parsing.clean_json(definition.get("Properties", {}), self.new)
            if policy := definition.get("UpdatePolicy"):  # which says how the type is to change
                properties = {**properties, "UpdatePolicy": parsing.clean_json(policy, self.new)}
            before = self.old.get(name)
            if before is None or before.cf_resource_type != kind:
                return self._create(name, definition, properties)
            if before.template_properties == properties:
                return before
            return self._change(name, definition, before, properties)
        except Exception as error:
            reason = error.message if isinstance(error, ApiError) else str(error)
            _log.info("%s %s failed", kind, name, exc_info=True)
            self._event(name, kind, "", "CREATE_FAILED" if name not in self.old else "UPDATE_FAILED", reason)
            raise ResourceFailed(f"{kind} {name}: {reason}") from error

    def _create(self, name: str, definition: Json, properties: Json) -> Any:
        resource: Any = parsing.parse_and_create_resource(
            name, definition, self.new, self.new._account_id, self.new._region_name
        )
        resource.template_properties, resource.definition = properties, definition
        self._created.append((name, resource))
        self._event(name, definition["Type"], resource.physical_resource_id, "CREATE_COMPLETE")
        if name in self.old:
            self._replaced.append((name, self.old[name]))
        return resource

    def _change(self, name: str, definition: Json, before: Any, properties: Json) -> Any:
        """Change a resource in place where its type allows that, else create a new one; a rollback changes it back."""
        change = getattr(before, "change", None)
        if change is None or not change(properties):
            return self._create(name, definition, properties)
        previous = before.template_properties

        def back() -> None:
            change(previous)
            before.template_properties = previous

        self._changed.append((name, back))
        before.template_properties, before.definition = properties, definition
        self._event(name, definition["Type"], before.physical_resource_id, "UPDATE_COMPLETE")
        return before

    def _remove(self, name: str, resource: Any) -> bool:
        """Delete a resource unless it is to be retained; as in CloudFormation a failure is an event and no error."""
        kind, physical_id = resource.cf_resource_type, resource.physical_resource_id
        policy, is_new = resource.definition.get("DeletionPolicy"), self.old.get(name) is not resource
        if policy == "Retain" or (policy == "RetainExceptOnCreate" and not is_new):
            self._event(name, kind, physical_id, "DELETE_SKIPPED")
            return True
        try:
            self.new._delete_resource(resource, resource.definition)
        except Exception as error:
            _log.warning("%s could not be deleted: %s", name, error)
            self._event(name, kind, physical_id, "DELETE_FAILED", str(error))
            return False
        self._event(name, kind, physical_id, "DELETE_COMPLETE")
        return True

    def _event(self, name: str, kind: str, physical_id: str, status: str, reason: str | None = None) -> None:
        stack = self.stack
        stack.events.append(Event(stack.stack_id, stack.name, name, physical_id, kind, status, reason, None))
        stack.events[-1].client_request_token = stack.client_request_token


def create(stack: Any) -> None:
    """Create a stack's resources, in place of Stack.create_resources; the caller waits for the few seconds."""
    _run(stack, {}, stack.resource_map, "CREATE", "ROLLBACK")


def update(stack: Any, template: str, role_arn: str | None, parameters: Any, tags: Any) -> threading.Thread:
    """Update a stack, in place of Stack.update: as CloudFormation does, work on in the thread that is returned."""
    before = (stack.resource_map, stack.template, stack.template_dict, stack.parameters)
    stack.template, stack.parameters = template, dict(parameters or {})
    stack._parse_template()
    try:
        fresh = stack._create_resource_map()
    except Exception:
        _restore(stack, before)
        raise
    if tags is not None:
        stack.tags = tags
    old = {name: one for name, one in before[0]._parsed_resources.items() if hasattr(one, "template_properties")}
    stack.status = "UPDATE_IN_PROGRESS"
    stack.client_request_token, stack.requested_token = stack.requested_token, None
    stack._add_stack_event("UPDATE_IN_PROGRESS", resource_status_reason="User Initiated")
    stack.resource_map = fresh
    work = (stack, old, fresh, "UPDATE", "UPDATE_ROLLBACK", before)
    thread = threading.Thread(target=_run, args=work, daemon=True)
    thread.start()
    return thread


def delete(stack: Any) -> bool:
    """Delete a stack's resources, each before those that it refers to; return whether all are gone that may go."""
    stack.stack_status_reason = stack.client_request_token = None
    stack._add_stack_event("DELETE_IN_PROGRESS", resource_status_reason="User Initiated")
    created = stack.resource_map._parsed_resources
    resources = {name: one for name, one in created.items() if hasattr(one, "template_properties")}
    change, failed = Change(stack, resources, stack.resource_map), []
    for name in reversed(creation_order({name: one.definition for name, one in resources.items()})):
        if change._remove(name, resources[name]):
            del created[name]
        else:
            failed.append(name)
    if failed:
        stack.stack_status_reason = f"The following resource(s) failed to delete: [{', '.join(failed)}]."
    _end(stack, "DELETE_FAILED" if failed else "DELETE_COMPLETE")
    return not failed


def _run(
    stack: Any, old: dict[str, Any], new: parsing.ResourceMap, verb: str, rollback: str, before: Any = None
) -> None:
    stack.status, stack.stack_status_reason = f"{verb}_IN_PROGRESS", None
    change, triggers = Change(stack, old, new), getattr(stack, "rollback_triggers", None)
    try:
        monitor = triggers.watch() if triggers else lambda: None
        change.run()
        monitor()
        change.clean_up()
        stack.output_map = stack._create_output_map()
        stack.finished_outputs = stack.computed_outputs()
        _end(stack, f"{verb}_COMPLETE")
    except Exception as error:
        failed = f"The following resource(s) failed: [{error}]"
        stack.stack_status_reason = failed if isinstance(error, ResourceFailed) else str(error)
        stack._add_stack_event(f"{rollback}_IN_PROGRESS", resource_status_reason=stack.stack_status_reason)
        _roll_back(stack, change, rollback, before)


def _roll_back(stack: Any, change: Change, rollback: str, before: Any) -> None:
    stack.status = f"{rollback}_IN_PROGRESS"
    try:
        change.roll_back()
    except Exception as error:
        stack.stack_status_reason = f"{stack.stack_status_reason}; and the rollback failed: {error}"
        return _end(stack, f"{rollback}_FAILED")
    if before is not None:
        _restore(stack, before)
    _end(stack, f"{rollback}_COMPLETE")


def _restore(stack: Any, before: Any) -> None:
    stack.resource_map, stack.template, stack.template_dict, stack.parameters = before


def _end(stack: Any, status: str) -> None:
    stack._add_stack_event(status, resource_status_reason=stack.stack_status_reason)
    stack.status = status
