"""Importing does nothing: no client, socket, process, thread, handler or file, in any module.

Shown on small packages that do such things. `stacks` is left out: aws_cdk starts its Node process on import.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

_TORCHLESS = (
    "training.__main__",
    "training.evaluate",
    "training.hyperparameters",
    "training.layout",
    "training.metrics",
    "training.prepare",
    "training.transform",
)

# Imports the modules named and reports what happened meanwhile. urllib3 binds a socket to ::1 to see whether there is
# IPv6; writing is watched below the root only, since libraries keep caches elsewhere.
PROBE = """
import importlib, json, logging, os, signal, sys, threading
root, *names = sys.argv[1:]
sys.path[:0] = [root, root + "/lambda"]
class WithoutTorch:  # and not None in sys.modules, which scipy takes for torch
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision"):
            raise ImportError(f"no {name}", name=name)
sys.meta_path.insert(0, WithoutTorch)
import botocore.session
acts, torch, now = [], [], ""
WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT
WATCHED = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.fork", "os.exec")
def watch(event, args):
    if event in WATCHED and not (event == "socket.bind" and args[1][0] == "::1"):
        acts.append(f"{now}: {event}")
    if event == "open" and isinstance(args[0], str) and args[0].startswith(root) and args[2] & WRITE:
        acts.append(f"{now}: open for writing")
def create_client(self, *args, **more):
    acts.append(f"{now}: boto3 client")
botocore.session.Session.create_client = create_client
sys.addaudithook(watch)
def state():
    signals = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    return signals, logging.root.handlers[:], threading.active_count()
for now in names:
    before = state()
    try:
        importlib.import_module(now)
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] not in ("torch", "torchvision"):
            raise
        torch.append(now)
    for what, old, new in zip(("signal handler", "log handler", "thread"), before, state()):
        if old != new:
            acts.append(f"{now}: {what}")
print(json.dumps({"acts": acts, "torch": torch}))
"""


def modules(root: Path, folder: str) -> list[str]:
    """Dotted names; those of a folder in lambda/ begin at that folder, as on Lambda."""
    base = root / "lambda" if folder.startswith("lambda/") else root
    files = [file.relative_to(base).with_suffix("") for file in sorted((root / folder).rglob("*.py"))]
    return [".".join(file.parts).removesuffix(".__init__") for file in files]


def imported(root: Path, folder: str) -> dict[str, list[str]]:
    """What importing every module of a folder did, and which of them need torch; in an interpreter of its own."""
    command = [sys.executable, "-B", "-c", PROBE, str(root), *modules(root, folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=root)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def plant(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return root


@pytest.mark.parametrize(
    "folder",
    ["lambda/classify", "lambda/promote", "lambda/probe", "lambda/unregister", "training", "inference", "kennel"],
)
def test_importing_does_nothing(folder: str) -> None:
    assert imported(ROOT, folder)["acts"] == []


def test_preparing_evaluating_and_serving_need_no_torch() -> None:
    needing = imported(ROOT, "training")["torch"]
    assert "training.train.engine" in needing
    assert [name for name in needing if name.startswith(_TORCHLESS)] == []


@pytest.mark.parametrize(
    ("text", "act"),
    [
        ("import boto3\nboto3.client('s3', region_name='eu-west-1')", "boto3 client"),
        ("import socket\nsocket.socket().connect_ex(('127.0.0.1', 9))", "socket.connect"),
        ("import socket\nsocket.socket().bind(('127.0.0.1', 0))", "socket.bind"),
        ("import subprocess\nsubprocess.run(['true'])", "subprocess.Popen"),
        ("import signal\nsignal.signal(signal.SIGTERM, print)", "signal handler"),
        ("import logging\nlogging.basicConfig()", "log handler"),
        ("import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()", "thread"),
        ("from pathlib import Path\nPath(__file__).with_name('x').write_text('')", "open for writing"),
    ],
)
def test_a_module_that_acts_when_it_is_imported_is_found(tmp_path: Path, text: str, act: str) -> None:
    plant(tmp_path, "inference/a.py", text)
    assert f"inference.a: {act}" in imported(tmp_path, "inference")["acts"]
