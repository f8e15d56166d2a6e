"""The inference server in a process of its own, with a model artifact of this machine."""

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

from kennel.errors import ROOT, KennelError, require_repository
from kennel.loadtest.subject import Subject, describe_machine
from kennel.verify.archive import read_members, unpack

_START = 120.0  # seconds in which it must listen
_STOP = 30.0  # seconds after SIGTERM
_POLL = 0.02


@contextmanager
def local(artifact: Path, folder: Path) -> Iterator[Subject]:
    """Serve `artifact` (model.tar.gz or its folder) from a process of its own; `folder` is for what it needs.

    The environment (PRECISION, RUNTIME, THREADS) reaches the server. Raise KennelError where it does not start.
    """
    require_repository("A load test of a model on this machine")
    _unpack_to(artifact, folder / "model")
    model = _read_model(folder / "model", artifact)
    log = folder / "server.log"
    environment = {"OPT_ML": str(folder), "BIND_ADDRESS": "127.0.0.1", "SAGEMAKER_BIND_TO_PORT": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "inference", "serve"],
            env={**os.environ, **environment},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        logged = _wait_until_listening(process, log)
        yield Subject(
            instance_type="",
            machine=describe_machine(),
            model=model,
            runtime=str(logged.get("runtime", "openvino")),
            precision=str(logged.get("precision", "float32")),
            url=f"http://127.0.0.1:{logged['port']}/invocations",
        )
    finally:
        _stop_server(process)


def _unpack_to(artifact: Path, target: Path) -> None:
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


def _read_model(folder: Path, artifact: Path) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        passport = folder / "passport.json"
        return {
            "architecture": str(fields["architecture"]),
            "image_size": int(fields["preprocessing"]["crop"]),
            "classes": len(fields["classes"]),
            "passport_sha256": hashlib.sha256(passport.read_bytes()).hexdigest() if passport.exists() else "",
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise KennelError(f"{artifact} holds no model ({type(error).__name__}: {error}).") from None


def _wait_until_listening(process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """Return all fields of the server's JSON log lines once one of them names its port."""
    end = time.monotonic() + _START
    while time.monotonic() < end:
        ended = process.poll() is not None
        logged = _logged(log)
        if "port" in logged:
            return logged
        if ended:
            raise KennelError(f"The server did not start: {_last_line(log)}")
        time.sleep(_POLL)
    raise KennelError(f"The server did not listen within {_START:.0f} s: {_last_line(log)}")


def _logged(log: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in log.read_text("utf-8", "replace").splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        found |= fields if isinstance(fields, dict) else {}
    return found


def _last_line(log: Path) -> str:
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    return lines[-1][-300:] if lines else "its log is empty"


def _stop_server(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
