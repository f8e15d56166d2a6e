"""The folders from which Lambda would run the functions that are compared."""

import compileall
import io
import os
import py_compile
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

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
