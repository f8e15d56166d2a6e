"""Lambda sandboxes on this machine: the packages of the functions compared, run under Lambda's own runtime client.

`python -m benchmarks.lib.lambda_sandboxes` plays the endpoint that they call: it prints its port, then answers every
signed InvokeEndpoint with the same probabilities until its input ends. GET /times answers the milliseconds that each
call since the last GET took it, from the request's first line to the answer.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty
from typing import Any

from benchmarks.lib.processes import ROOT, output_of, start
from kennel.rehearsal.interfaces import FunctionCall
from kennel.rehearsal.serving.sandbox import Invocation, RuntimeApi, environment

# The first answer of each process tells what happened inside it, in seconds of time.monotonic(), which all processes
# of a machine share. Where boto3 makes a client that is counted by itself.
_MEASURED = """
import time

BEGUN = time.monotonic()
import sys

from classify import handler as ours

IMPORTED = time.monotonic()
clients = []


def counted(make):
    def make_and_count(*arguments, **options):
        begun = time.monotonic()
        try:
            return make(*arguments, **options)
        finally:
            clients.append(time.monotonic() - begun)

    return make_and_count


if "boto3" in sys.modules:
    sys.modules["boto3"].client = counted(sys.modules["boto3"].client)


def handler(event, context):
    called = time.monotonic()
    answer = ours.handler(event, context)
    clock = {"begun": BEGUN, "imported": IMPORTED, "called": called, "client": sum(clients)}
    return answer | {"clock": clock | {"answered": time.monotonic()}}
"""

_PLAIN = {
    "nothing": "def handler(event, context):\n    return {}\n",
    "plain": """
import boto3

client = boto3.client("sagemaker-runtime")


def handler(event, context):
    return {}
""",
    "calling": """
import base64
import json
import os

import boto3

client = boto3.client("sagemaker-runtime")


def handler(event, context):
    picture = base64.b64decode(event["image"])
    answer = client.invoke_endpoint(EndpointName=os.environ["ENDPOINT_NAME"], Body=picture, ContentType="image/jpeg")
    return json.loads(answer["Body"].read())
""",
}


def deployed(folder: Path) -> Path:
    """Return the asset with the package `classify` as `cdk synth` would upload it."""
    output_of(start([sys.executable, "app.py"], CDK_OUTDIR=str(folder), CDK_VALIDATION="false"))
    return next(folder.glob("asset.*/classify/handler.py")).parents[1]


def plain(folder: Path) -> Path:
    """Return a folder with the functions to compare with: modules `nothing`, `plain` and `calling`."""
    folder.mkdir()
    return _with_modules(folder, _PLAIN)


def measured(asset: Path, folder: Path) -> Path:
    """Return a copy with the module `measured` around it, whose first answer has `clock`, its moments in seconds."""
    shutil.copytree(asset, folder)
    return _with_modules(folder, {"measured": _MEASURED})


def _with_modules(folder: Path, sources: dict[str, str]) -> Path:
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def kilobytes(asset: Path) -> float:
    """Return the thousands of bytes of the archive that would be uploaded."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(shutil.make_archive(f"{folder}/asset", "zip", asset)).stat().st_size / 1000


# As Lambda starts it, with libraries on PYTHONPATH: an environment's own start-up files would cost every function.
_PYTHON = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
_ARN = "arn:aws:lambda:us-east-1:111122223333:function:classify"
_TIMEOUT = 30.0  # seconds for one answer
_SETTINGS = {"ENDPOINT_NAME": "kennel-dev", "ALLOWED_S3_PREFIXES": "bucket/photos/", "TOP_K": "5"}
# Names as long as a role's.
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "A" * 20, "AWS_SECRET_ACCESS_KEY": "s" * 40, "AWS_SESSION_TOKEN": "t" * 700}


Function = tuple[str, Path]  # its handler, as Lambda names it, in the asset folder


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
    api, (handler, code) = RuntimeApi(), function
    call = FunctionCall(_ARN, "1", handler, code, "", {}, _TIMEOUT, 1024, payload)
    variables = {**environment(call, api.address), **_CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, **_SETTINGS}
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(
            # -B: a function's code is read-only.
            [str(_PYTHON), "-B", "-m", "awslambdaric", handler],
            env={**variables, "PYTHONPATH": sysconfig.get_path("purelib")},
            cwd=code,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            first = _invoke(api, payload)
            yield Warm(api, started, time.monotonic(), first)
        except RuntimeError as error:
            output.seek(0)
            raise RuntimeError(f"{handler}: {error}\n{output.read().decode(errors='replace')}") from error
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


@contextmanager
def stub_endpoint() -> Iterator[int]:
    """Yield the port of a stub endpoint, which ends with this process, whose pipe it reads."""
    command = [sys.executable, "-m", "benchmarks.lib.lambda_sandboxes"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        yield int(process.stdout.readline())
        process.stdin.close()


_CLASSES = 133  # as many as the reference workload has
_BODY = json.dumps(
    {
        "probabilities": [1 / _CLASSES] * _CLASSES,
        "classes": [f"breed-{number:03}" for number in range(_CLASSES)],
        "threshold": None,
        "model": "arn:aws:sagemaker:us-east-1:111122223333:model-package/kennel-dev/1",
    }
).encode()
_SIGNATURE = ("AWS4-HMAC-SHA256 ", "Credential=", "SignedHeaders=", "Signature=")


class _StubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    times: list[float] = []  # noqa: RUF012  (of all connections)
    writing = threading.Lock()  # so that who has an answer finds its time in the list

    def parse_request(self) -> bool:
        """Note the moment, as soon as the first line has come."""
        self.begun = time.perf_counter()
        return super().parse_request()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        with self.writing:
            self._answer(200, json.dumps(self.times).encode())
            self.times.clear()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        signature = self.headers.get("Authorization", "")
        if not all(part in signature for part in _SIGNATURE) or not self.headers.get("X-Amz-Date"):
            self._answer(403, b'{"Message":"Missing Authentication Token"}')
        elif not (self.path.startswith("/endpoints/") and self.path.endswith("/invocations")):
            self._answer(404, b'{"Message":"not found"}')
        else:
            with self.writing:
                self._answer(200, _BODY)
                self.times.append(1000 * (time.perf_counter() - self.begun))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-Amzn-Invoked-Production-Variant", "AllTraffic")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _StubHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
