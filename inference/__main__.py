"""`python3 -m inference [serve]`: reads its settings, loads the model, answers once for itself, then binds the port."""

import argparse
import os
import signal
import socket
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn
from PIL import Image
from starlette.applications import Starlette

from inference import app, artifact, telemetry
from inference.classifier import Classifier, load_runtime, supported_precisions
from inference.errors import StartError
from inference.runtime_selection import EXPORTS, PRECISIONS, Selection, cores, select
from inference.telemetry import Metrics

_DRAIN_SECONDS = 25  # SageMaker kills 30 seconds after SIGTERM
# Longer than a load balancer keeps an idle connection, so that the server is not the one to close it under a request.
_KEEP_ALIVE_SECONDS = 75


@dataclass(frozen=True)
class Settings:
    """What the environment variables decide (docs/contracts/server-api.md)."""

    model_dir: Path
    host: str
    port: int  # 0: any free port; the log line `listening` names it
    max_bytes: int  # of a request's body
    max_pixels: int  # of a picture, before it is decoded
    model_package_arn: str  # empty when unknown
    endpoint: str  # the metrics' dimension; empty when unknown
    runtime: str
    precision: str  # auto: the best that artifact and hardware offer
    threads: int  # 0: one per core


def settings_from(environ: Mapping[str, str]) -> Settings:
    """Return the settings; raise StartError naming the variable whose value is not in its range."""
    return Settings(
        model_dir=Path(environ.get("OPT_ML") or "/opt/ml") / "model",
        # SageMaker calls the container from outside; BIND_ADDRESS keeps a rehearsal on loopback.
        host=environ.get("BIND_ADDRESS") or "0.0.0.0",
        port=_number(environ, "SAGEMAKER_BIND_TO_PORT", 8080, 0, 65535),
        # The payload that an endpoint takes.
        max_bytes=_number(environ, "MAX_BYTES", 6 * 1024 * 1024, 1, 2**31),
        # 150 MB as RGB, for each picture that is worked on at a time.
        max_pixels=_number(environ, "MAX_PIXELS", 50_000_000, 1, 2**31),
        model_package_arn=environ.get("MODEL_PACKAGE_ARN", ""),
        endpoint=environ.get("ENDPOINT_NAME", ""),
        runtime=_one_of(environ, "RUNTIME", tuple(EXPORTS)),
        precision=_one_of(environ, "PRECISION", PRECISIONS),
        threads=_number(environ, "THREADS", 0, 0, 1024),
    )


def _number(environ: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = environ.get(name) or str(default)
    if not (text.isascii() and text.isdigit() and len(text) < 12 and low <= int(text) <= high):
        raise StartError(f"{name} must be a whole number from {low} to {high}, not {text!r}.")
    return int(text)


def _one_of(environ: Mapping[str, str], name: str, values: Sequence[str]) -> str:
    """Return the value of the variable; the first of `values` is the default."""
    value = environ.get(name) or values[0]
    if value not in values:
        raise StartError(f"{name} must be one of {', '.join(values)}, not {value!r}.")
    return value


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Return 0 after SIGTERM or SIGINT and the last answer, 1 when the server could not start."""
    parser = argparse.ArgumentParser("python3 -m inference", description="Serves the model in $OPT_ML/model.")
    parser.add_argument("command", nargs="?", choices=["serve"], help="what SageMaker passes; changes nothing")
    parser.parse_args(arguments)
    # PID 1 gets no signal that it has no handler for: without these, a container cannot be stopped while it loads.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_at_once)
    telemetry.start()
    try:
        settings = settings_from(environment)
        classifier, selection = load(settings)
        listener = _listen(settings.host, settings.port)
    except StartError as error:
        print(f"inference: {error}", file=sys.stderr)
        return 1
    metrics = Metrics(settings.endpoint)
    stop = metrics.start()
    application = app.build(
        classifier,
        workers=selection.workers,
        metrics=metrics,
        max_bytes=settings.max_bytes,
        model=settings.model_package_arn,
    )
    _serve(application, listener)
    stop()
    return 0


def load(settings: Settings) -> tuple[Classifier, Selection]:
    """Return a classifier that has answered once; raise StartError."""
    found = artifact.load(settings.model_dir)
    selection = select(
        settings.runtime,
        settings.precision,
        settings.threads,
        exports=found.files,
        supported=supported_precisions(settings.runtime),
        cores=cores(),
    )
    telemetry.event(
        "runtime_selected",
        runtime=selection.runtime,
        precision=selection.precision,
        threads=selection.threads,
        reason=selection.reason,
    )
    # Our own limit is checked before any pixel is decoded; Pillow's would warn on standard error.
    Image.MAX_IMAGE_PIXELS = None
    # Pillow warns of each new kind of broken EXIF data, which callers make as they like.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    classifier = Classifier(found, load_runtime(found, selection), settings.max_pixels)
    classifier.warm_up(selection.workers)
    return classifier, selection


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # For the connections too: otherwise an answer's body waits 40 ms for the caller to acknowledge its head. asyncio
    # would do it, but only where the listener was made by naming TCP.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        hint = "stop what listens there or set SAGEMAKER_BIND_TO_PORT to another port"
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}; {hint}.") from error
    return listener


def _serve(application: Starlette, listener: socket.socket) -> None:
    """Serve until a signal; then uvicorn stops accepting and answers what it has."""
    config = uvicorn.Config(
        application,
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):  # between here and uvicorn's own handlers nothing may be interrupted
        signal.signal(number, server.handle_exit)
    host, port = listener.getsockname()
    telemetry.event("listening", host=host, port=port)
    server.run([listener])


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    """Exit without cleanup, since nothing was begun; a C++ library under import may turn an exception into its own."""
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
