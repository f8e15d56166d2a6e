"""Every test may talk to this machine and to nobody else."""

import functools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session  # type: ignore[import-untyped]
import pytest

# Node reads it when the first test module imports aws_cdk: a fixture would come too late.
os.environ["CDK_VALIDATION"] = "false"

# A shell that starts tests in the background lets them ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where torch is not wanted, a module that is all torch is not even imported: that alone takes seconds."""
    if "not torch" in config.option.markexpr and collection_path.suffix == ".py":
        return "\npytestmark = pytest.mark.torch\n" in collection_path.read_text("utf-8") or None
    return None


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(_LOOPBACK):
            raise AssertionError(f"a test tried to reach {address[0]}; only loopback is allowed")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture(scope="session", autouse=True)
def service_models() -> Iterator[None]:
    """Let botocore parse a service's model once in a process: each new session of a test would read megabytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


_MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
server.start()
print("http://{}:{}".format(*server.get_host_and_port()), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """The address of a moto server of its own process: the rehearsal's control plane changes moto in this one."""
    command = [sys.executable, "-c", _MOTO]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    yield process.stdout.readline().strip()
    process.communicate()


@pytest.fixture(scope="session")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The synthesized app, cdk.out; whoever changes it takes a copy."""
    from kennel.rehearsal.rehearse import synthesize

    return synthesize(tmp_path_factory.mktemp("cdk.out"))


@dataclass
class KeptRehearsal:
    """A rehearsal that stays up: what its clients set, the address of its page, and the folder of its report."""

    environment: dict[str, str]
    page: str
    out: Path


@pytest.fixture(scope="session")
def kept_rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptRehearsal]:
    """`kennel rehearse --keep` after one epoch on the digits; for long tests."""
    out = tmp_path_factory.mktemp("kept") / "out"
    code = "from kennel.cli import app; app(prog_name='kennel')"
    options = ["--keep", "--epochs", "1", "--threshold", "0.05", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "AWS_"))}
    root = Path(__file__).parents[1]
    environment["PYTHONPATH"] = str(root)
    process = subprocess.Popen(
        [sys.executable, "-c", code, "rehearse", *options],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C ends it." in line:
                break
        else:
            raise AssertionError(f"the rehearsal ended: {said[-3000:]}")
        exports = dict(re.findall(r"^export (\w+)=(\S+)$", said, flags=re.M))
        page = re.findall(r"^Drop a photo on (\S+)$", said, flags=re.M)[0]
        yield KeptRehearsal(exports, page, out)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
