"""The inference server on this machine, with the artifact in question."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kennel.errors import KennelError
from kennel.loadtest.machine import describe
from kennel.loadtest.subject import Subject
from kennel.verify.archive import read_members, unpack

_ROOT = Path(__file__).resolve().parents[2]
_START = 120.0  # seconds until it must listen
_LEAVE = 30.0  # seconds after SIGTERM
_POLL = 0.02


@contextmanager
def local(artifact: Path, folder: Path) -> Iterator[Subject]:
    """Serve `artifact` (model.tar.gz or its folder) from a process of its own; `folder` is for what it needs.

    The environment (PRECISION, RUNTIME, THREADS) reaches the server. Raises KennelError where it does not start.
    """
    _place(artifact, folder / "model")
    model = _described(folder / "model", artifact)
    log = folder / "server.log"
    environment = {"OPT_ML": str(folder), "BIND_ADDRESS": "127.0.0.1", "SAGEMAKER_BIND_TO_PORT": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "inference", "serve"],
            env={**os.environ, **environment},
            cwd=_ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        said = _listening(process, log)
        yield Subject(
            instance_type="",
            machine=describe(),
            model=model,
            runtime=str(said.get("runtime", "openvino")),
            precision=str(said.get("precision", "float32")),
            url=f"http://127.0.0.1:{said['port']}/invocations",
        )
    finally:
        _end(process)


def _place(artifact: Path, target: Path) -> None:
    if artifact.is_dir():
        target.symlink_to(artifact.resolve(), target_is_directory=True)
        return
    try:
        with artifact.open("rb") as file:
            read_members(file, str(artifact))  # refuses whatever is hostile
        with tarfile.open(artifact, "r:gz") as tar:
            unpack(tar, target)
    except OSError as error:
        hint = "name a model.tar.gz or the folder of one"
        raise KennelError(f"{artifact} cannot be read ({error.strerror or error}); {hint}.") from None


def _described(folder: Path, artifact: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        passport = folder / "passport.json"
        return {
            "architecture": str(facts["architecture"]),
            "image_size": int(facts["preprocessing"]["crop"]),
            "classes": len(facts["classes"]),
            "passport_sha256": hashlib.sha256(passport.read_bytes()).hexdigest() if passport.exists() else "",
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KennelError(f"{artifact} holds no model ({type(error).__name__}: {error}).") from None


def _listening(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """Everything that the server said of itself until it listened."""
    end = time.monotonic() + _START
    while time.monotonic() < end:
        ended = process.poll() is not None
        said = _facts(log)
        if "port" in said:
            return said
        if ended:
            raise KennelError(f"The server did not start: {_last_line(log)}")
        time.sleep(_POLL)
    raise KennelError(f"The server did not listen within {_START:.0f} s: {_last_line(log)}")


def _facts(log: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in log.read_text("utf-8", "replace").splitlines():
        try:
            facts = json.loads(line)
        except ValueError:
            continue
        found |= facts if isinstance(facts, dict) else {}
    return found


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it said nothing"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_LEAVE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
