"""What the environment decides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.errors import StartError
from inference.runtime_selection import EXPORTS, PRECISIONS


@dataclass(frozen=True)
class Settings:
    model_dir: Path
    host: str
    port: int  # 0: any free port; the log line `listening` names it
    max_bytes: int  # of a request's body
    max_pixels: int  # of a picture, before it is decoded
    model_package_arn: str  # empty when unknown
    endpoint: str  # the metrics' dimension; empty when unknown
    runtime: str
    precision: str  # auto: the best that artifact and hardware offer
    threads: int  # 0: one for each core


def from_environ(environ: Mapping[str, str]) -> Settings:
    """Raises StartError naming the variable whose value is no number in its range."""
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
    """The first is the default."""
    value = environ.get(name) or values[0]
    if value not in values:
        raise StartError(f"{name} must be one of {', '.join(values)}, not {value!r}.")
    return value
