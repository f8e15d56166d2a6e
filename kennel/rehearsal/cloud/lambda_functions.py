"""Lambda's Invoke: resolves versions and aliases, unpacks the code once, hands the call to the data plane, measures."""

import base64
import io
import json
import logging
import queue
import re
import threading
import time
import uuid
import zipfile
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]
from moto.awslambda.exceptions import UnknownAliasException
from moto.awslambda.models import lambda_backends
from werkzeug.wrappers import Response

from kennel.rehearsal.cloud.api import ApiError, Call
from kennel.rehearsal.cloud.clients import ACCOUNT, REGION, client, send_to_queue
from kennel.rehearsal.cloud.cloudwatch.metrics import Metrics
from kennel.rehearsal.interfaces import DataPlane, FunctionAnswer, FunctionCall, TooManyRequests

_log = logging.getLogger(__name__)
_SYNC_BYTES, _EVENT_BYTES = 6 * 2**20, 2**20
_WHOLE = 1 - 1e-9  # ten tenths are a bit less than one


class Functions:
    """Answers Invoke and runs functions for events; their code is unpacked below `work`."""

    def __init__(self, data_plane: DataPlane, work: Path, metrics: Metrics) -> None:
        self.data_plane, self.work, self._metrics = data_plane, work, metrics
        self._unpacking, self._routing = threading.Lock(), threading.Lock()
        self._due: dict[str, float] = defaultdict(float)  # by alias, the part of a call that its second version is owed
        self._logs: queue.SimpleQueue[tuple[Any, str]] = queue.SimpleQueue()
        threading.Thread(target=self._write_logs, daemon=True, name="function logs").start()

    def invoke(self, call: Call) -> Response:
        """Answer Invoke: RequestResponse and Event; raise ApiError as Lambda does."""
        kind = call.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        named = _unqualified(call.parameters["FunctionName"], call.parameters.get("Qualifier"))
        function = self._find(*named)
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
        self._measure(function, named[1], answer)
        if answer.error:
            headers["X-Amz-Function-Error"] = answer.error
        if call.headers.get("X-Amz-Log-Type", "") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(answer.log.encode()[-4096:]).decode()
        return Response(answer.payload, 200, {**headers, "Content-Type": "application/json"})

    def invoke_with_batch(self, arn: str, payload: bytes) -> FunctionAnswer:
        """Run a function with messages of its queue; raise ApiError where it may not run now."""
        return self._run(self._find(*_unqualified(arn, None)), payload)

    def invoke_from(self, arn: str, payload: bytes, source: str) -> None:
        """Run a function for a rule, asynchronously; raise ApiError where no permission names the rule `source`."""
        function = self._find(*_unqualified(arn, None))
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

    def _find(self, name: str, qualifier: str) -> Any:
        """Return the function, or its version that `qualifier` names or its weights choose."""
        try:
            version = self._route(name, qualifier) if qualifier else None
            return lambda_backends[ACCOUNT][REGION].get_function(name, version)
        except Exception as error:
            raise ApiError("ResourceNotFoundException", f"Function not found: {name}", 404, Type="User") from error

    def _route(self, name: str, qualifier: str) -> str:
        """Return the version to which a call of an alias with weights goes, each in its turn; else `qualifier`.

        Lambda draws lots; turns keep the shares of few calls what they are.
        """
        config: Any = None
        with suppress(UnknownAliasException):
            config = lambda_backends[ACCOUNT][REGION].get_alias(qualifier, name).routing_config
        for version, weight in (config or {}).get("AdditionalVersionWeights", {}).items():
            with self._routing:
                self._due[f"{name}:{qualifier}"] += weight
                if self._due[f"{name}:{qualifier}"] >= _WHOLE:
                    self._due[f"{name}:{qualifier}"] -= 1
                    return str(version)
        return qualifier

    def _measure(self, function: Any, qualifier: str, answer: FunctionAnswer) -> None:
        """Publish the metrics of one call, by function, by what was named, and by what that came to.

        https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html
        """
        name, version = function.function_name, str(function.version)
        sets = [
            {"FunctionName": name},
            {"FunctionName": name, "Resource": f"{name}:{qualifier}" if qualifier else name},
        ]
        if qualifier not in ("", version):
            sets.append({**sets[1], "ExecutedVersion": version})
        took = re.search(r"\tDuration: ([\d.]+) ms", answer.log)
        for one in sets:
            self._metrics.put("AWS/Lambda", "Invocations", one, 1.0, "Count")
            self._metrics.put("AWS/Lambda", "Errors", one, float(answer.error is not None), "Count")
            if took:
                self._metrics.put("AWS/Lambda", "Duration", one, float(took[1]), "Milliseconds")


def _unqualified(name: str, qualifier: str | None) -> tuple[str, str]:
    """Return a function's name and the qualifier, which may stand at the end of a name or an ARN."""
    own, *more = name.split(":")[6:] if name.startswith("arn:") else name.split(":")
    return own, qualifier or next(iter(more), "")


def _permits(statement: dict[str, Any], source: str) -> bool:
    service = statement.get("Principal", {}).get("Service")
    like = statement.get("Condition", {}).get("ArnLike", {}).get("AWS:SourceArn", source)
    return service == "events.amazonaws.com" and bool(like == source)
