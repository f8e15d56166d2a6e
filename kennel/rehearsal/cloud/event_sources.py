"""Lambda's event source mappings: what a queue holds goes to its function, and is deleted when that succeeds."""

import json
import logging
import math
import threading
from collections.abc import Callable
from typing import Any

from moto.awslambda.models import EventSourceMapping, lambda_backends
from moto.sqs.models import Queue, sqs_backends

from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client
from kennel.rehearsal.interfaces import FunctionAnswer

_log = logging.getLogger(__name__)
_POLL_S = 0.1
_FASTER = 60  # what failed comes again after this part of the visibility timeout: seconds stand for minutes
_IN_RECORDS = {"messageId": "MessageId", "receiptHandle": "ReceiptHandle", "body": "Body", "md5OfBody": "MD5OfBody"}


class EventSources:
    """Polls the queues of all mappings; `invoke(function_arn, payload)` runs a function and waits for its answer."""

    def __init__(self, invoke: Callable[[str, bytes], FunctionAnswer]) -> None:
        self._invoke = invoke
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure = ""  # the reason of the last batch that failed

    def start(self) -> None:
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, daemon=True, name="event sources")
        self._thread.start()

    def stop(self) -> None:
        """End the polling; safe to call twice."""
        self._stopped.set()
        if self._thread is not None:
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
