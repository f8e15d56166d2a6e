"""Changes moto where it does not behave as AWS does; each function says why. Applied once in a process."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import moto.codedeploy.responses
import moto.moto_server.werkzeug_app
import moto.s3.notifications
from moto.awslambda.models import LambdaFunction
from moto.cloudformation import models, parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.responses import CloudFormationResponse
from moto.core.errors import COMMON_ERROR_CODES
from moto.events.exceptions import InvalidEventPatternException
from moto.events.models import EventPatternParser, Rule
from moto.iam.access_control import PermissionResult
from moto.iam.policy_validation import IAMPolicyDocumentValidator
from moto.s3.models import FakeBucket, S3Backend
from moto.sqs.models import DEDUPLICATION_TIME_IN_SECONDS, Message, Queue, SQSBackend

from kennel.rehearsal.cloud.cloudformation import engine, exports, operations
from kennel.rehearsal.cloud.cloudformation.types.table import register
from kennel.rehearsal.cloud.events import Publish

# Every service of AWS answers with these.
_COMMON_ERRORS = (
    *("AccessDenied", "AccessDeniedException", "InternalFailure", "InvalidRequest"),
    *("IncompleteSignature", "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationToken"),
    "SignatureDoesNotMatch",
)


@cache
def apply() -> None:
    register()
    _evaluate_stack_outputs()
    # moto reads each with PyYAML in Python, which takes seconds for a template; CDK writes JSON.
    _change(models.Stack, "parse_template", staticmethod(json.loads))
    _run_stacks_by_the_engine()
    _keep_request_tokens()
    exports.install()
    operations.install()
    _check_parameters()
    _skip_bucket_policies()
    _accept_numbers_in_conditions()
    _refuse_unknown_comparisons()
    _show_all_configuration_of_functions()
    _show_alarms_of_deployment_groups()
    _keep_fifo_queues_in_order()
    _answer_no_other_origin()
    COMMON_ERROR_CODES.extend(_COMMON_ERRORS)  # moto warns of codes that a service's model lacks


def send_events_to(
    deliver: Callable[[Any, Any], None],
    object_created: Callable[..., None],
    publish: Publish,
) -> None:
    """moto lacks pipelines and functions among a rule's targets, and sends S3's events in a form of its own.

    Of stacks it sends none: `publish` takes those.
    """
    _change(Rule, "send_to_targets", lambda rule, event: deliver(rule, event))  # a function, to be a method
    _change(moto.s3.notifications, "_send_event_bridge_message", object_created)

    def add_stack_event(stack: Any, resource_status: str, *args: Any, **more: Any) -> None:
        _ADD_STACK_EVENT(stack, resource_status, *args, **more)
        event = stack.events[-1]
        event.client_request_token = stack.client_request_token
        stack.status = resource_status  # before anybody hears of it
        reason, token = event.resource_status_reason, event.client_request_token
        detail = {
            "stack-id": stack.stack_id,
            "status-details": {"status": resource_status, "status-reason": reason or ""},
        }
        detail |= {"client-request-token": token} if token else {}
        publish("aws.cloudformation", "CloudFormation Stack Status Change", detail, [stack.stack_id])

    _change(models.Stack, "_add_stack_event", add_stack_event)


_ADD_STACK_EVENT = models.Stack._add_stack_event


def _change(owner: Any, name: str, value: Any) -> None:
    setattr(owner, name, value)


def _evaluate_stack_outputs() -> None:
    """moto does not know Fn::GetStackOutput, and evaluates an export before the resources that it names are there."""
    clean = parsing.clean_json

    def clean_json(value: Any, resources: parsing.ResourceMap) -> Any:
        if isinstance(value, dict) and "Fn::GetStackOutput" in value:
            source = clean_json(value["Fn::GetStackOutput"], resources)
            return _output(resources, source["StackName"], source["OutputName"])
        if isinstance(value, dict) and "Fn::ImportValue" in value:
            return _imported(resources, clean_json(value["Fn::ImportValue"], resources))
        return clean(value, resources)

    _change(parsing, "clean_json", clean_json)
    _change(models.Stack, "exports", ())


def _output(resources: parsing.ResourceMap, stack: str, output: str) -> str:
    backend = models.cloudformation_backends[resources._account_id][resources._region_name]
    for one in backend.get_stack(stack).outputs or []:
        if one["OutputKey"] == output:
            return str(one["OutputValue"])
    raise ValidationError(message=f"Stack {stack} has no output {output}")


def _imported(resources: parsing.ResourceMap, export: str) -> str:
    backend = models.cloudformation_backends[resources._account_id][resources._region_name]
    for stack in backend.stacks.values():
        for key, declared in (stack.template_dict.get("Outputs") or {}).items():
            if declared.get("Export", {}).get("Name") == export:
                return _output(resources, stack.name, key)
    raise ValidationError(message=f"No export named {export} found.")


def _run_stacks_by_the_engine() -> None:
    """Order, replacement, rollback and reasons are engine.py's; lookups in between must not create resources."""
    _change(models.Stack, "create_resources", engine.create)
    _change(models.Stack, "update", engine.update)
    _change(models.Stack, "finished_outputs", None)
    _change(models.Stack, "stack_status_reason", None)
    outputs: Any = models.Stack.outputs
    _change(models.Stack, "computed_outputs", outputs.fget)
    _change(models.Stack, "outputs", property(lambda stack: stack.finished_outputs))

    def created(resources: parsing.ResourceMap) -> Iterator[str]:
        return iter([name for name in resources._resource_json_map if name in resources._parsed_resources])

    _change(parsing.ResourceMap, "__iter__", created)


def _keep_request_tokens() -> None:
    """moto drops ClientRequestToken, by which one knows the events of an operation."""
    update = CloudFormationResponse.update_stack

    def update_stack(response: CloudFormationResponse) -> Any:
        stack: Any = response.cloudformation_backend.get_stack(response._get_param("StackName"))
        stack.requested_token = response._get_param("ClientRequestToken")
        return update(response)

    _change(CloudFormationResponse, "update_stack", update_stack)
    for name in ("client_request_token", "requested_token"):  # of the operation that runs or ran last, of the next one
        _change(models.Stack, name, None)


def _check_parameters() -> None:
    """moto does not look at a parameter's AllowedPattern and AllowedValues."""
    load = parsing.ResourceMap.load_parameters

    def load_parameters(resources: parsing.ResourceMap) -> None:
        engine.check_parameters(resources._template, resources.input_parameters)
        load(resources)

    _change(parsing.ResourceMap, "load_parameters", load_parameters)


def _skip_bucket_policies() -> None:
    """moto's evaluation ignores Condition, so a TLS-only Deny would refuse all; iam/policy.py evaluates it instead.

    And moto refuses access logs before the log bucket's policy is there, which S3 does not, nor does CDK's order. It
    also writes them at once, into a bucket that its stack is about to delete; S3 delivers within hours: here never.
    """
    _change(FakeBucket, "get_permission", lambda bucket, action, resource: PermissionResult.NEUTRAL)
    _change(FakeBucket, "_log_permissions_enabled_policy", staticmethod(lambda target_bucket, target_prefix: True))
    _change(S3Backend, "log_incoming_request", lambda backend, request, bucket_name: None)


def _accept_numbers_in_conditions() -> None:
    """moto refuses a policy whose condition has a bare number (NumericLessThanEquals: 86400), which IAM takes."""
    check: Callable[[Any], None] = IAMPolicyDocumentValidator._validate_condition_syntax

    def without_numbers(statement: dict[str, Any]) -> None:
        condition = json.loads(json.dumps(statement.get("Condition", {})), parse_int=str, parse_float=str)
        check({"Condition": condition})

    _change(IAMPolicyDocumentValidator, "_validate_condition_syntax", staticmethod(without_numbers))


_COMPARISONS = {"anything-but", "cidr", "equals-ignore-case", "exists", "numeric", "prefix", "suffix", "wildcard"}


def _refuse_unknown_comparisons() -> None:
    """moto takes every event to match a comparison that it does not know; PutRule refuses such a pattern here."""
    validate = EventPatternParser._validate_event_pattern

    def validate_with_comparisons(parser: EventPatternParser, pattern: dict[str, Any]) -> None:
        validate(parser, pattern)
        for name, values in pattern.items():
            for value in values if isinstance(values, list) else []:
                if name == "$or":
                    parser._validate_event_pattern(value)
                elif isinstance(value, dict) and set(value) - _COMPARISONS:
                    raise InvalidEventPatternException(reason=f"the comparison {next(iter(value))!r} is not rehearsed")

    _change(EventPatternParser, "_validate_event_pattern", validate_with_comparisons)


def _show_all_configuration_of_functions() -> None:
    """moto's functions have no place for LoggingConfig and DeadLetterConfig: types/functions.py adds them."""
    configuration = LambdaFunction.get_configuration

    def get_configuration(function: LambdaFunction, on_create: bool = False) -> dict[str, Any]:
        return {**configuration(function, on_create), **getattr(function, "more_configuration", {})}

    _change(LambdaFunction, "get_configuration", get_configuration)


def _show_alarms_of_deployment_groups() -> None:
    """moto stores a group's alarms without returning them."""
    info = moto.codedeploy.responses._deployment_group_info

    def group_info(group: Any) -> dict[str, Any]:
        return {**info(group), "alarmConfiguration": group.alarm_configuration or {}}

    _change(moto.codedeploy.responses, "_deployment_group_info", group_info)


def _keep_fifo_queues_in_order() -> None:
    """moto forgets the deduplication id of a deleted message, reverses a batch that comes again, and names no queue.

    It would also run a mapped function itself, in Docker; events.py does that.
    """
    receive, create = SQSBackend.receive_message, Queue.create_from_cloudformation_json

    def add_message(queue: Any, message: Message) -> None:
        sent: Any = message.sent_timestamp  # in milliseconds
        seen: dict[str, int] = queue.__dict__.setdefault("deduplicated", {})
        if queue.fifo_queue and message.deduplication_id:
            if sent - seen.get(message.deduplication_id, 0) < DEDUPLICATION_TIME_IN_SECONDS * 1000:
                return
            seen[message.deduplication_id] = sent
        with queue._messages_lock:
            queue._messages.append(message)
            queue._messages_lock.notify_all()

    def receive_message(backend: SQSBackend, queue_name: str, *args: Any, **more: Any) -> list[Message]:
        queue = backend.get_queue(queue_name)
        queue.pending_messages.difference_update([one for one in queue.pending_messages if one.visible])
        return receive(backend, queue_name, *args, **more)

    def create_queue(resource_name: str, cloudformation_json: Any, *args: Any, **more: Any) -> Queue:
        is_fifo = str(cloudformation_json.get("Properties", {}).get("FifoQueue", "")).lower() == "true"
        ending = ".fifo" if is_fifo and not resource_name.endswith(".fifo") else ""
        return create(f"{resource_name}{ending}", cloudformation_json, *args, **more)

    _change(Queue, "add_message", add_message)
    _change(SQSBackend, "receive_message", receive_message)
    _change(Queue, "create_from_cloudformation_json", staticmethod(create_queue))


def _answer_no_other_origin() -> None:
    """moto lets every web page read its answers (CORS); AWS's control planes let none."""
    _change(moto.moto_server.werkzeug_app, "DISABLE_GLOBAL_CORS", True)
