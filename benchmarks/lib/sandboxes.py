"""Runs a function under Lambda's own runtime client, and times it from both ends."""

import json
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from kennel.rehearsal.interfaces import FunctionCall
from kennel.rehearsal.serving.sandbox import Invocation, RuntimeApi, environment

# As Lambda starts it, with libraries on PYTHONPATH: an environment's own start-up files would cost every function.
_PYTHON = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
_ARN = "arn:aws:lambda:us-east-1:111122223333:function:classify"
_TIMEOUT = 30.0  # seconds for one answer
_SETTINGS = {"ENDPOINT_NAME": "kennel-dev", "ALLOWED_S3_PREFIXES": "bucket/photos/", "TOP_K": "5"}
# Names as long as a role's.
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "A" * 20, "AWS_SECRET_ACCESS_KEY": "s" * 40, "AWS_SESSION_TOKEN": "t" * 700}


@dataclass(frozen=True)
class Function:
    """A function: `handler` as Lambda names it, in the asset folder `code`."""

    handler: str
    code: Path


@dataclass(frozen=True)
class Warm:
    """A sandbox that has answered once; `started` and `answered` in seconds of time.monotonic()."""

    api: RuntimeApi
    started: float
    answered: float
    first: Any

    def invoke(self, payload: bytes) -> float:
        """Return the milliseconds from handing out the event to having the answer."""
        begun = time.monotonic()
        _invoke(self.api, payload)
        return 1000 * (time.monotonic() - begun)


@contextmanager
def answered(function: Function, payload: bytes, endpoint: str) -> Iterator[Warm]:
    """Start a sandbox whose first event waits for it. Raise RuntimeError where the function does not answer well."""
    api = RuntimeApi()
    call = FunctionCall(_ARN, "1", function.handler, function.code, "", {}, _TIMEOUT, 1024, payload)
    variables = {**environment(call, api.address), **_CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, **_SETTINGS}
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(
            # -B: a function's code is read-only.
            [str(_PYTHON), "-B", "-m", "awslambdaric", function.handler],
            env={**variables, "PYTHONPATH": sysconfig.get_path("purelib")},
            cwd=function.code,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            first = _invoke(api, payload)
            yield Warm(api, started, time.monotonic(), first)
        except RuntimeError as error:
            output.seek(0)
            raise RuntimeError(f"{function.handler}: {error}\n{output.read().decode(errors='replace')}") from error
        finally:
            process.kill()
            process.wait()
            api.close()


def _invoke(api: RuntimeApi, payload: bytes) -> Any:
    api.invocations.put(Invocation(str(uuid.uuid4()), payload, time.time() + _TIMEOUT, _ARN))
    try:
        posted = api.posted.get(timeout=_TIMEOUT)
    except Empty as error:
        raise RuntimeError("it did not answer") from error
    answer = json.loads(posted.body)
    if posted.kind != "response" or "error" in answer:
        raise RuntimeError(f"it answered {posted.body[:500]!r}")
    return answer
