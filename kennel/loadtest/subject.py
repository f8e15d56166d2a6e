"""What a load test measures: a deployed endpoint, or the inference server here in a process of its own."""

import hashlib
import json
import os
import platform
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kennel.aws import Client, aws_errors, output, suppressed
from kennel.errors import ROOT, KennelError, require_repository
from kennel.rehearsal.containers.engine import Process
from kennel.verify.archive import read_members, unpack

# Those that decide speed.
_VECTOR_UNITS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")

_START = 120.0  # seconds in which a server must listen
_STOP = 30.0  # seconds after SIGTERM
_POLL = 0.02


@dataclass(frozen=True)
class Subject:
    """Requests go to `url` or else to `endpoint`. `instance_type` is empty where no SageMaker instance answers.

    `model` has `architecture`, `image_size` (pixels; None: unknown) and what identifies it. `captured_percent` of the
    requests are kept in the data bucket.
    """

    instance_type: str
    machine: str
    model: dict[str, Any]
    runtime: str
    precision: str
    url: str = ""
    endpoint: str = ""
    instances: int = 1
    captured_percent: int = 0


def describe_machine() -> str:
    """Return the cores that this process may use, the processor with its vector units, and the memory in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{len(os.sched_getaffinity(0))} cores of {_processor()}, {memory:.0f} GiB"


def _processor(file: Path = Path("/proc/cpuinfo")) -> str:
    entries: dict[str, str] = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        name, _, value = line.partition(":")
        entries.setdefault(name.strip(), value.strip())
    units = [unit for unit in _VECTOR_UNITS if unit in entries.get("flags", "").split()]
    return entries.get("model name", platform.machine()) + (f" ({', '.join(units)})" if units else "")


def deployed(stage: str, client: Client) -> Subject:
    """Return the endpoint of `stage`, or raise KennelError where none answers.

    `client` makes a boto3 client of a service.
    """
    name, sagemaker = output(stage, "Hosting", "EndpointName"), client("sagemaker")
    with aws_errors():
        endpoint = _endpoint(sagemaker, name, stage)
        config = sagemaker.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        variant = config["ProductionVariants"][0]
        container = sagemaker.describe_model(ModelName=variant["ModelName"])["PrimaryContainer"]
        model = _model(sagemaker, container.get("ModelPackageName", ""))
    environment = container.get("Environment", {})
    capture = config.get("DataCaptureConfig", {})
    host = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).hostname or ""
    rehearsed = host in ("localhost", "::1") or host.startswith("127.")  # this machine computes its endpoints
    machine = (
        f"{describe_machine()}, rehearsed"
        if rehearsed
        else f"{variant['InstanceType']} in {sagemaker.meta.region_name}"
    )
    return Subject(
        instance_type="" if rehearsed else variant["InstanceType"],
        machine=machine,
        model=model,
        runtime=environment.get("RUNTIME", "openvino"),
        precision=environment.get("PRECISION", "auto"),
        endpoint=name,
        # Rehearsed instances share this machine's cores: together they are one.
        instances=1 if rehearsed else int(endpoint["ProductionVariants"][0]["CurrentInstanceCount"]),
        captured_percent=int(capture.get("InitialSamplingPercentage", 0)) if capture.get("EnableCapture") else 0,
    )


def _endpoint(sagemaker: Any, name: str, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with suppressed("ValidationException"):
        found = sagemaker.describe_endpoint(EndpointName=name)
    if not found:
        raise KennelError(f"There is no endpoint {name} yet: release a model first (`kennel status --stage {stage}`).")
    if found["EndpointStatus"] != "InService":
        raise KennelError(f"The endpoint {name} is {found['EndpointStatus']}: measure it when it is InService.")
    return found


def _model(sagemaker: Any, package: str) -> dict[str, Any]:
    if not package:
        return {"architecture": "", "image_size": None}
    metadata = sagemaker.describe_model_package(ModelPackageName=package).get("CustomerMetadataProperties", {})
    size = metadata.get("image_size", "")
    return {
        "architecture": metadata.get("model", ""),
        "image_size": int(size) if size.isdigit() else None,
        "passport_sha256": metadata.get("passport_sha256", ""),
        "package": package,
    }


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
        command = [sys.executable, "-m", "inference", "serve"]
        process = Process(command, environment={**os.environ, **environment}, cwd=ROOT, output=output.fileno())
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
        process.stop(_STOP)


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


def _wait_until_listening(process: Process, log: Path) -> dict[str, Any]:
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
