"""CloudFormation's change sets and the deletion of stacks, in place of moto's.

moto's change sets of several stacks share one name space, and are executed by moto's own order of resources; its
deletion forgets the stack before its resources are gone, knows no order and no reason.
"""

import json
import threading
from typing import Any

from moto.cloudformation.exceptions import CloudFormationError, ValidationError
from moto.cloudformation.models import ChangeSet, CloudFormationBackend, Stack

from kennel.rehearsal.cloud.cloudformation import engine
from kennel.rehearsal.cloud.cloudformation.exports import export_in_use

# CloudFormation answers at once and works on; the CDK CLI then asks every five seconds. An answer that waits for what
# takes less than that spares each short operation the five seconds.
_PATIENCE_S = 5.0


class ChangeSetNotFound(CloudFormationError):
    """The change set does not exist, or its stack has executed one."""

    code = "ChangeSetNotFound"


def install() -> None:
    """Put these operations in the place of moto's."""
    replaced: list[tuple[Any, str, Any]] = [
        (ChangeSet, "_parse_template", _parse_template),
        (CloudFormationBackend, "describe_change_set", describe_change_set),
        (CloudFormationBackend, "delete_change_set", delete_change_set),
        (CloudFormationBackend, "execute_change_set", execute_change_set),
        (CloudFormationBackend, "delete_stack", delete_stack),
        (Stack, "stack_parameters", property(_given_parameters)),
    ]
    for owner, name, value in replaced:
        setattr(owner, name, value)


def _parse_template(change_set: Any) -> None:
    change_set.template_dict = json.loads(change_set.template)


def _given_parameters(stack: Any) -> dict[str, Any]:
    """Return what UsePreviousValue stands for: of a parameter from SSM its name, where moto gives the name's value."""
    defaults = {name: one.get("Default") for name, one in stack.template_dict.get("Parameters", {}).items()}
    return {**defaults, **stack.parameters}


def describe_change_set(backend: Any, change_set_name: str) -> Any:
    """Return the change set with this name or ARN; raise ChangeSetNotFound."""
    for arn, change_set in backend.change_sets.items():
        if change_set_name in (arn, change_set.change_set_name):
            return change_set
    raise ChangeSetNotFound(f"ChangeSet [{change_set_name}] does not exist")


def delete_change_set(backend: Any, change_set_name: str) -> None:
    """Delete a change set; one that does not exist is no error."""
    for arn, change_set in list(backend.change_sets.items()):
        if change_set_name in (arn, change_set.change_set_name):
            del backend.change_sets[arn]


def execute_change_set(backend: Any, change_set_name: str, stack_name: str | None = None) -> None:
    """Create or update the stack; all its change sets are gone then, as in CloudFormation."""
    change_set = describe_change_set(backend, change_set_name)
    if change_set.execution_status != "AVAILABLE":
        raise ValidationError(message=f"ChangeSet [{change_set.change_set_id}] is {change_set.status}.")
    stack = change_set.stack
    backend.change_sets = {arn: one for arn, one in backend.change_sets.items() if one.stack is not stack}
    if change_set.change_set_type == "CREATE":
        work = _first_creation(backend, stack, change_set)
    else:
        work = stack.update(change_set.template, None, parameters=change_set.parameters, tags=change_set.tags)
    work.join(_PATIENCE_S)


def _first_creation(backend: Any, stack: Any, change_set: Any) -> threading.Thread:
    """Begin to create the stack that until now was only there for its change set."""
    stack.template, stack.parameters = change_set.template, dict(change_set.parameters)
    stack.cross_stack_resources = backend.exports
    stack._parse_template()
    stack.description = stack.template_dict.get("Description")
    stack.resource_map = stack._create_resource_map()
    stack.status = "CREATE_IN_PROGRESS"
    stack._add_stack_event("CREATE_IN_PROGRESS", resource_status_reason="User Initiated")
    return _begin(stack.create_resources)


def delete_stack(backend: Any, name_or_stack_id: str) -> None:
    """Begin to delete a stack; one that does not exist is no error, and one that others import from stays as it is."""
    for stack in list(backend.stacks.values()):
        if name_or_stack_id in (stack.name, stack.stack_id):
            if reason := export_in_use(stack):
                stack._add_stack_event(stack.status, resource_status_reason=reason)
                return
            stack.status = "DELETE_IN_PROGRESS"
            _begin(lambda stack=stack: _delete(backend, stack)).join(_PATIENCE_S)


def _delete(backend: Any, stack: Any) -> None:
    if engine.delete(stack):
        backend.deleted_stacks[stack.stack_id] = backend.stacks.pop(stack.stack_id)


def _begin(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
