"""`python3 -m inference [serve]`: loads the model, answers once for itself, then binds the port."""

import argparse
import os
import signal
import socket
import sys
import warnings
from collections.abc import Mapping, Sequence
from types import FrameType

import uvicorn
from PIL import Image
from starlette.applications import Starlette

from inference import app, artifact, logs, machine, network, settings
from inference import runtime_selection as choice
from inference.classifier import Classifier
from inference.errors import StartError
from inference.metrics import Metrics
from inference.runtime_selection import Choice

_DRAIN_SECONDS = 25  # SageMaker kills 30 seconds after SIGTERM
# Longer than a load balancer keeps an idle connection, so that the server is not the one to close it under a request.
_KEEP_ALIVE_SECONDS = 75


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """The exit status: 0 after SIGTERM or SIGINT and the last answer, 1 when the server could not start."""
    parser = argparse.ArgumentParser("python3 -m inference", description="Serves the model in $OPT_ML/model.")
    parser.add_argument("command", nargs="?", choices=["serve"], help="what SageMaker passes; changes nothing")
    parser.parse_args(arguments)
    # PID 1 gets no signal that it has no handler for: without these, a container cannot be stopped while it loads.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    logs.start()
    try:
        chosen = settings.from_environ(environment)
        classifier, made = ready(chosen)
        listener = _listen(chosen.host, chosen.port)
    except StartError as error:
        print(f"inference: {error}", file=sys.stderr)
        return 1
    metrics = Metrics(chosen.endpoint)
    stop = metrics.start()
    _serve(app.build(classifier, chosen, made.workers, metrics), listener)
    stop()
    return 0


def ready(chosen: settings.Settings) -> tuple[Classifier, Choice]:
    """Ready to answer; raises StartError."""
    found = artifact.load(chosen.model_dir)
    made = choice.choose(
        chosen.runtime,
        chosen.precision,
        chosen.threads,
        offered=found.files,
        multiplied=network.multiplies(chosen.runtime),
        cores=machine.cores(),
    )
    logs.event("chosen", runtime=made.runtime, precision=made.precision, threads=made.threads, why=made.why)
    # Our own limit is checked before any pixel is decoded; Pillow's would warn on standard error.
    Image.MAX_IMAGE_PIXELS = None
    # Of each new kind of broken EXIF data, which callers make as they like.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    classifier = Classifier(found, network.load(found, made), chosen.max_pixels)
    classifier.warm_up(made.workers)
    return classifier, made


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
    """Until a signal: then uvicorn stops accepting and answers what it has."""
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
    logs.event("listening", host=host, port=port)
    server.run([listener])


def _leave(number: int, frame: FrameType | None) -> None:
    """At once, since nothing is to be finished yet; the import of a C++ library may turn an exception into its own."""
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
