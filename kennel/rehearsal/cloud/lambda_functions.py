"""Lambda's Invoke: resolves versions and aliases, unpacks the code once and hands the call to the data plane."""

import base64
import io
import json
import logging
import queue
import threading
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from moto.awslambda.models import lambda_backends
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client, send_to_queue
from kennel.rehearsal.interfaces import DataPlane, FunctionAnswer, FunctionCall, TooManyRequests

_log = logging.getLogger(__name__)
_SYNC_BYTES, _EVENT_BYTES = 6 * 2**20, 2**20


class Functions:
    """Answers Invoke and runs functions for events; their code is unpacked below `work`."""

    def __init__(self, data_plane: DataPlane, work: Path) -> None:
        self.data_plane, self.work = data_plane, work
        self._unpacking = threading.Lock()
        self._logs: queue.SimpleQueue[tuple[Any, str]] = queue.SimpleQueue()
        threading.Thread(target=self._write_logs, daemon=True, name="function logs").start()

    def invoke(self, call: Call) -> Response:
        """Answer Invoke: RequestResponse and Event; raise ApiError as Lambda does."""
        kind = call.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        function = self._find(call.parameters["FunctionName"], call.parameters.get("Qualifier"))
        limit = _EVENT_BYTES if kind == "Event" else _SYNC_BYTES
        if len(call.body) > limit:
            raise ApiError("RequestTooLargeException", f"{len(call.body)} bytes exceed the limit of {limit}.", 413)
        try:
            json.loads(call.body or b"{}")
        except ValueError as error:
            text = f"Could not parse request body into json: {error}"
            raise ApiError("InvalidRequestContentException", text) from error
        headers = {"X-Amz-Executed-Version": str(function.version), "x-amzn-RequestId": str(uuid.uuid4())}
        if kind == "Event":
            threading.Thread(target=self.run_asynchronously, args=(function, call.body or b"{}"), daemon=True).start()
            return Response(b"", 202, headers)
        answer = self._run(function, call.body or b"{}")
        if answer.error:
            headers["X-Amz-Function-Error"] = answer.error
        if call.headers.get("X-Amz-Log-Type", "") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(answer.log.encode()[-4096:]).decode()
        return Response(answer.payload, 200, {**headers, "Content-Type": "application/json"})

    def invoke_with_batch(self, arn: str, payload: bytes) -> FunctionAnswer:
        """Run a function with messages of its queue; raise ApiError where it may not run now."""
        return self._run(self._find(arn, None), payload)

    def invoke_from(self, arn: str, payload: bytes, source: str) -> None:
        """Run a function for a rule, asynchronously; raise ApiError where no permission names the rule `source`."""
        function = self._find(arn, None)
        if not any(_permits(one, source) for one in function.policy.statements):
            raise ApiError("AccessDeniedException", f"no lambda permission lets {source} invoke {arn}")
        self.run_asynchronously(function, payload)

    def run_asynchronously(self, function: Any, payload: bytes) -> None:
        """Run and, after an error, run again as EventInvokeConfig says, without Lambda's minutes of pause."""
        retries = 2
        for config in getattr(function, "event_invoke_config", []):
            retries = config.config.get("MaximumRetryAttempts", retries)
        reason = ""
        for _ in range(retries + 1):
            try:
                answer = self._run(function, payload)
            except Exception as error:  # nobody waits for this call: it ends as a dead letter, not as a traceback
                reason = str(error)
                continue
            if not answer.error:
                return
            reason = answer.payload[:500].decode(errors="replace")
        _log.warning("%s failed %d times: %s", function.function_name, retries + 1, reason)
        if target := getattr(function, "more_configuration", {}).get("DeadLetterConfig", {}).get("TargetArn"):
            send_to_queue(target, payload.decode())

    def _run(self, function: Any, payload: bytes) -> FunctionAnswer:
        call = FunctionCall(
            arn=function.function_arn,
            version=str(function.version),
            handler=function.handler,
            code=self._code(function),
            role_arn=function.role,
            environment=dict(function.environment_vars),
            timeout_s=float(function.timeout),
            memory_mb=int(function.memory_size),
            payload=payload,
        )
        try:
            answer = self.data_plane.invoke_function(call)
        except TooManyRequests as error:
            raise ApiError("TooManyRequestsException", str(error), 429) from error
        self._logs.put((function, answer.log))
        return answer

    def _write_logs(self) -> None:
        """Write one log after the other: with a thread for each call, callers faster than moto would make thousands."""
        while True:
            self._write_log(*self._logs.get())

    def _write_log(self, function: Any, text: str) -> None:
        """Write to CloudWatch Logs as the function's role; as with Lambda, the log of a role that may not is lost."""
        config = getattr(function, "more_configuration", {}).get("LoggingConfig", {})
        group = config.get("LogGroup", f"/aws/lambda/{function.function_name}")
        stream = f"{time.strftime('%Y/%m/%d')}/[{function.version}]{uuid.uuid4().hex}"
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line} for line in text.splitlines() if line]
        try:
            logs = client("logs", function.role)
            logs.create_log_stream(logGroupName=group, logStreamName=stream)
            if events:
                logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)
        except (BotoCoreError, ClientError) as error:
            _log.info("the log of %s was not written: %s", function.function_name, error)

    def _code(self, function: Any) -> Path:
        folder: Path = self.work / function.code_digest.replace("/", "_")
        with self._unpacking:
            if not folder.exists():
                partial = folder.with_suffix(".partial")
                zipfile.ZipFile(io.BytesIO(function.code_bytes)).extractall(partial)
                partial.rename(folder)
        return folder

    def _find(self, name: str, qualifier: str | None) -> Any:
        try:
            return lambda_backends[ACCOUNT][REGION].get_function(name, qualifier)
        except Exception as error:
            raise ApiError("ResourceNotFoundException", f"Function not found: {name}", 404, Type="User") from error


def _permits(statement: dict[str, Any], source: str) -> bool:
    service = statement.get("Principal", {}).get("Service")
    like = statement.get("Condition", {}).get("ArnLike", {}).get("AWS:SourceArn", source)
    return service == "events.amazonaws.com" and bool(like == source)
