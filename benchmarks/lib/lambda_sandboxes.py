"""Lambda sandboxes on this machine: the packages of the functions compared, run under Lambda's own runtime client."""

import compileall
import io
import json
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from kennel.rehearsal.interfaces import FunctionCall
from kennel.rehearsal.serving.sandbox import Invocation, RuntimeApi, environment

ROOT = Path(__file__).resolve().parents[2]

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
    """The asset with the package `classify` as `cdk synth` would upload it; raises RuntimeError where synth fails."""
    environment = os.environ | {"CDK_OUTDIR": str(folder), "CDK_VALIDATION": "false"}
    done = subprocess.run(
        [sys.executable, "app.py"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    found = sorted(folder.glob("asset.*/classify/handler.py"))
    if done.returncode or not found:
        raise RuntimeError(f"python app.py made no asset with classify/handler.py:\n{done.stderr}")
    return found[0].parents[1]


def is_compiled(asset: Path) -> bool:
    return any(asset.rglob("*.pyc"))


def source_only(asset: Path, folder: Path) -> Path:
    """A copy without compiled files."""
    shutil.copytree(asset, folder, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    return folder


def compiled(asset: Path, folder: Path) -> Path:
    """A copy with compiled files of this Python, in a form that does not depend on times, which an archive loses."""
    source_only(asset, folder)
    compileall.compile_dir(folder, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return folder


def plain(folder: Path) -> Path:
    """The functions to compare with: modules `nothing`, `plain` and `calling`, compiled."""
    return _modules(_PLAIN, folder)


def measured(asset: Path, folder: Path) -> Path:
    """`asset` with the module `measured` around it, whose first answer carries `clock`, its moments in seconds."""
    shutil.copytree(asset, folder)
    return _modules({"measured": _MEASURED}, folder)


def kilobytes(asset: Path) -> float:
    """Thousands of bytes of the archive that would be uploaded."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(asset.rglob("*")):
            archive.write(path, path.relative_to(asset))
    return len(file.getvalue()) / 1000


def _modules(sources: dict[str, str], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, source in sources.items():
        file = folder / f"{name}.py"
        file.write_text(source)
        py_compile.compile(str(file), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    return folder


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
