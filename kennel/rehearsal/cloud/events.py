"""What sets off what: the default event bus, whose rules call their targets, and the queues that functions poll."""

import json
import logging
import math
import random
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import reduce
from operator import getitem
from typing import Any

from moto.awslambda.models import EventSourceMapping, lambda_backends
from moto.events.models import events_backends
from moto.sqs.models import Queue, sqs_backends

from kennel.rehearsal.cloud.api import ApiError
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client, send_to_queue
from kennel.rehearsal.cloud.iam.authorizer import allowed
from kennel.rehearsal.interfaces import FunctionAnswer

Event = dict[str, Any]
Publish = Callable[[str, str, dict[str, Any], list[str]], object]
"""Sends an event as a service does: source, detail type, detail and resources, as EventBus.publish takes them."""
_log = logging.getLogger(__name__)
_REASONS = {"Put": "PutObject", "Copy": "CopyObject", "Post": "POST Object"}


class EventBus:
    """Take events from services and PutEvents, and call the targets of the rules that match.

    `invoke(arn, payload, source)` runs a function asynchronously; `overrides` replace pipeline parameters that a rule
    gives.
    """

    def __init__(self, invoke: Callable[[str, bytes, str], None], overrides: dict[str, str]) -> None:
        self._invoke, self._overrides = invoke, overrides
        self.undelivered: list[str] = []  # "rule -> target: reason" of each event that a target refused
        self.delays, self._drawing = _delays(random.Random(1)), threading.Lock()

    def publish(self, source: str, kind: str, detail: dict[str, Any], resources: list[str]) -> None:
        entry = {"Source": source, "DetailType": kind, "Detail": json.dumps(detail), "Resources": resources}
        events_backends[ACCOUNT][REGION].put_events([entry])

    def publish_as_sagemaker(self, source: str, kind: str, detail: dict[str, Any], resources: list[str]) -> None:
        """Send an event as SageMaker does: at times more than once, or so late that a later one comes before it.

        https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html
        """
        with self._drawing:
            delays = next(self.delays)
        for seconds in delays:
            if not seconds:
                self.publish(source, kind, detail, resources)
                continue
            timer = threading.Timer(seconds, self.publish, (source, kind, detail, resources))
            timer.daemon = True
            timer.start()

    def deliver(self, rule: Any, event: Event) -> None:
        """Call the targets of `rule` if it matches, in threads of their own; moto calls this for each rule."""
        pattern = rule.event_pattern
        if rule.state != "ENABLED" or not pattern.get_pattern() or not pattern.matches_event(event):
            return
        event["time"] = datetime.fromtimestamp(event["time"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for target in rule.targets:
            threading.Thread(target=self._deliver, args=(rule, target, event), daemon=True).start()

    def run_schedules(self, minute: int) -> None:
        """Call the targets of each rule whose rate in minutes says so, one after the other."""
        for rule in [*events_backends[ACCOUNT][REGION]._get_event_bus("default").rules.values()]:
            rate = re.fullmatch(r"rate\((\d+) minutes?\)", rule.scheduled_expression or "")
            if rate and rule.state == "ENABLED" and minute % int(rate[1]) == 0:
                kind = {"source": "aws.events", "detail-type": "Scheduled Event"}
                event = {**kind, "resources": [rule.arn], "detail": {}}
                for target in rule.targets:
                    self._deliver(rule, target, event)

    def object_created(self, _account: str, bucket: Any, event_name: str, key: Any) -> None:
        """Publish a new object's event; moto's S3 calls this for a bucket with EventBridge on."""
        kind = event_name.removeprefix("s3:ObjectCreated:")
        # Of an upload in parts moto says both Put and CompleteMultipartUpload; it is one object, known by its tag.
        if kind not in _REASONS:
            return
        reason = "CompleteMultipartUpload" if "-" in key.etag else _REASONS[kind]
        about = {"key": key.name, "size": key.size, "etag": key.etag.strip('"'), "sequencer": uuid.uuid4().hex[:16]}
        if key.version_id and key.version_id != "null":
            about["version-id"] = key.version_id
        detail = {"version": "0", "bucket": {"name": bucket.name}, "object": about, "reason": reason}
        self.publish("aws.s3", "Object Created", detail, [f"arn:aws:s3:::{bucket.name}"])

    def _deliver(self, rule: Any, target: dict[str, Any], event: Event) -> None:
        try:
            if ":pipeline/" in target["Arn"]:
                self._start_pipeline(rule, target, event)
            elif ":lambda:" in target["Arn"]:
                self._invoke(target["Arn"], _text(target, event).encode(), rule.arn)
            elif ":sqs:" in target["Arn"]:
                group = target.get("SqsParameters", {}).get("MessageGroupId")
                _send(rule, target["Arn"], _text(target, event), group)
            elif ":sns:" in target["Arn"]:
                client("sns").publish(TopicArn=target["Arn"], Message=_text(target, event))
            else:
                raise ApiError("Unsupported", f"targets like {target['Arn']} are not rehearsed")
        except Exception as error:
            self.undelivered.append(f"{rule.name} -> {target['Arn']}: {error}")
            _log.warning("rule %s could not reach %s: %s", rule.name, target["Arn"], error)
            if queue := target.get("DeadLetterConfig", {}).get("Arn"):
                _send(rule, queue, json.dumps(event))

    def _start_pipeline(self, rule: Any, target: dict[str, Any], event: Event) -> None:
        given = target.get("SageMakerPipelineParameters", {}).get("PipelineParameterList", [])
        values = {one["Name"]: _resolve(one["Value"], event) for one in given} | self._overrides
        overridden = ", ".join(f"{name}={value}" for name, value in self._overrides.items())
        client("sagemaker", target["RoleArn"]).start_pipeline_execution(
            PipelineName=target["Arn"].rpartition("/")[2],
            PipelineExecutionDescription=f"Started by rule {rule.name}"
            + (f"; the rehearsal set {overridden}" if overridden else ""),
            PipelineParameters=[{"Name": name, "Value": value} for name, value in values.items()],
        )


def _delays(chance: random.Random) -> Iterator[tuple[float, ...]]:
    """Yield, for each event, after how many seconds each of its copies is sent."""
    while True:
        first = chance.choice((0.0, 0.0, 0.0, 0.5))
        yield (first,) if chance.random() < 0.7 else (first, first + 0.2)


def _send(rule: Any, queue: str, body: str, group: str | None = None) -> None:
    """Send to a queue; raise ApiError where its policy does not let EventBridge do that for this rule."""
    policy = sqs_backends[ACCOUNT][REGION].get_queue(queue.rpartition(":")[2]).policy
    own = [one for one in json.loads(policy or '{"Statement": []}')["Statement"] if _is_for_events(one)]
    context = {"aws:SourceArn": rule.arn, "aws:SecureTransport": "true"}
    if not allowed([{"Statement": own}], "sqs:SendMessage", queue, context):
        raise ApiError("AccessDenied", f"the policy of {queue} does not let {rule.arn} send to it")
    send_to_queue(queue, body, group)


def _is_for_events(statement: dict[str, Any]) -> bool:
    principal = statement["Principal"]
    service = principal.get("Service", principal.get("AWS")) if isinstance(principal, dict) else principal
    return service in ("*", "events.amazonaws.com")


def _text(target: dict[str, Any], event: Event) -> str:
    """Return what a target gets: its own input, the event, or a part of it."""
    if "Input" in target:
        return str(target["Input"])
    if transformer := target.get("InputTransformer"):
        values = {name: read_path(path, event) for name, path in transformer.get("InputPathsMap", {}).items()}
        template = transformer["InputTemplate"]
        shown = str if template.startswith('"') else json.dumps  # within a text a value stands without quotes
        return re.sub("<([^<>]+)>", lambda found: shown(values[found[1]]), template)
    return json.dumps(read_path(target["InputPath"], event) if "InputPath" in target else event)


def _resolve(value: str, event: Event) -> str:
    return str(read_path(value, event)) if value.startswith("$.") else value


def read_path(path: str, event: Event) -> Any:
    """Return what a dotted JSONPath such as $.detail.object.key finds; raise ApiError where the event lacks it."""
    try:
        return reduce(getitem, path.split(".")[1:], event)
    except (KeyError, TypeError):
        raise ApiError("ValidationException", f"the event has no {path}") from None


_POLL_S = 0.1
_FASTER = 60  # what failed comes again after this part of the visibility timeout: seconds stand for minutes
_IN_RECORDS = {"messageId": "MessageId", "receiptHandle": "ReceiptHandle", "body": "Body", "md5OfBody": "MD5OfBody"}


class EventSources:
    """Polls the queues of all mappings; `invoke(function_arn, payload)` runs a function and waits for its answer."""

    def __init__(self, invoke: Callable[[str, bytes], FunctionAnswer]) -> None:
        self._invoke = invoke
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="event sources")
        self.failure = ""  # the reason of the last batch that failed

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_POLL_S):
            queues = {queue.queue_arn: queue for queue in list(sqs_backends[ACCOUNT][REGION].queues.values())}
            for mapping in list(lambda_backends[ACCOUNT][REGION]._event_source_mappings.values()):
                queue = queues.get(mapping.event_source_arn)
                if queue and queue.messages and mapping.enabled:
                    try:
                        self._poll(mapping, queue)
                    except Exception as error:  # a missing permission, say: Lambda goes on polling
                        self._fail(mapping, str(error))

    def _poll(self, mapping: EventSourceMapping, queue: Queue) -> None:
        """Hand over one batch, as the function's role, which Lambda polls with."""
        function = lambda_backends[ACCOUNT][REGION].get_function(mapping.function_arn)
        sqs, url = client("sqs", function.role), client("sqs").get_queue_url(QueueName=queue.name)["QueueUrl"]
        messages = sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=mapping.batch_size, MessageSystemAttributeNames=["All"]
        ).get("Messages", [])
        if not messages:
            return
        records = [_record(one, mapping.event_source_arn) for one in messages]
        answer = self._invoke(mapping.function_arn, json.dumps({"Records": records}).encode())
        if answer.error:
            self._fail(mapping, answer.payload[:500].decode(errors="replace"))
        for one in messages:
            handle = {"QueueUrl": url, "ReceiptHandle": one["ReceiptHandle"]}
            if answer.error:
                timeout = math.ceil(queue.visibility_timeout / _FASTER)  # type: ignore[attr-defined]
                sqs.change_message_visibility(**handle, VisibilityTimeout=timeout)
            else:
                sqs.delete_message(**handle)

    def _fail(self, mapping: EventSourceMapping, reason: str) -> None:
        self.failure = reason
        _log.warning("%s failed with a batch of %s: %s", mapping.function_arn, mapping.event_source_arn, reason)


def _record(message: dict[str, Any], source: str) -> dict[str, Any]:
    record = {name: message[key] for name, key in _IN_RECORDS.items()}
    about = {"attributes": message["Attributes"], "messageAttributes": message.get("MessageAttributes", {})}
    return {**record, **about, "eventSource": "aws:sqs", "eventSourceARN": source, "awsRegion": REGION}
