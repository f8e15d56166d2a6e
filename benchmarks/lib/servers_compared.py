"""The servers that are compared, each with what its image would install."""

import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lib import cache, installed, torchserve
from benchmarks.lib.servers import Server
from inference import slim

ROOT = Path(__file__).resolve().parents[2]
PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "int8": "int8"}  # as the server calls them
TORCHSERVE, FASTAPI = "TorchServe 0.12", "FastAPI, eager f32"
_FASTAPI = ("fastapi==0.165.0", "annotated-doc==0.0.7", "opentelemetry-api==1.44.0")
_TORCH = ("torch", "torchvision", "pillow")


@dataclass(frozen=True)
class Contender:
    """`make` may raise NotServed; `megabytes` may be called after it; `precision`: what Kennel's server must say."""

    name: str
    make: Callable[[], Server]
    megabytes: Callable[[], float]
    precision: str | None = None


def contenders(models: Path, classes: list[str], folder: Path) -> Iterator[Contender]:
    """`models`: what benchmarks.lib.serving_model wrote."""
    names = installed.listed(ROOT / "inference" / "requirements.txt")
    for precision in PRECISIONS:
        yield Contender(
            f"Kennel, {precision}",
            lambda precision=precision: kennel(models, precision, len(classes)),  # type: ignore[misc]
            lambda: installed.megabytes(names) - _taken(),
            precision,
        )
    weights = models / "f32" / "model" / "weights.pt"
    yield Contender(
        TORCHSERVE, lambda: torchserve.torchserve(weights, classes, folder / "torchserve"), torchserve.megabytes
    )
    yield Contender(FASTAPI, lambda: _fastapi(weights, len(classes)), _fastapi_megabytes)


def kennel(models: Path, precision: str, classes: int) -> Server:
    """As its container runs it. A network of whole numbers is another artifact; bf16 is a way to compute the same."""
    environment = {
        **variables(models, precision),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "SAGEMAKER_BIND_TO_PORT": "{port}",
        "BIND_ADDRESS": "127.0.0.1",
    }
    return Server(
        f"Kennel, {precision}", [sys.executable, "-m", "inference", "serve"], environment, "/invocations", classes
    )


def variables(models: Path, precision: str) -> dict[str, str]:
    """What chooses artifact and precision."""
    return {"OPT_ML": str(models / ("int8" if precision == "int8" else "f32")), "PRECISION": PRECISIONS[precision]}


def _taken() -> float:
    """Millions of bytes that the image's build takes out again."""
    site = Path(sysconfig.get_path("platlib"))
    return sum(map(slim.size, slim.unused(site))) / 1e6


def _fastapi(weights: Path, classes: int) -> Server:
    environment = {"PYTHONPATH": f"{cache.provide(_FASTAPI)}:{ROOT}", "WEIGHTS": str(weights)}
    command = [sys.executable, "-m", "uvicorn", "benchmarks.lib.fastapi_eager:app", "--port", "{port}"]
    return Server(FASTAPI, command, environment, "/predict", classes)


def _fastapi_megabytes() -> float:
    folder = cache.provide(_FASTAPI)
    return installed.megabytes(installed.with_dependencies(["fastapi", "uvicorn", *_TORCH], folder), folder)
