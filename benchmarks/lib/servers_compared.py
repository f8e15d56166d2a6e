"""The servers that are compared: Kennel's in each precision, FastAPI with eager torch, and LitServe.

FastAPI's is what most people write, one process with the model inside the endpoint; LitServe's is in litserve_app.py.
Both hold torchvision's ResNet-50 in float32.
"""

import functools
import io
import json
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from benchmarks.lib.processes import ROOT, NotServed, Server, output_of, start
from inference import slim

PRECISIONS = {"f32": "float32", "bf16": "bfloat16", "int8": "int8"}  # as the server calls them
KENNEL = "Kennel, "  # and the precision
PEERS = ("FastAPI, f32", "LitServe, f32")
CLASSES = [f"breed-{number:03}" for number in range(133)]  # as many as the reference workload has
_REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"
_SLACK = 0.01  # by which rounded probabilities may miss a sum of one


@dataclass(frozen=True)
class Compared:
    """`precision`: the one that Kennel's server must choose; empty for the others."""

    name: str
    server: Server
    precision: str = ""


def servers_compared(models: Path) -> Iterator[Compared]:
    """Yield each server; `models` is what serving_programs made. Raise NotServed without the packages."""
    for short, precision in PRECISIONS.items():
        environment = {
            **kennel_variables(models, short),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "SAGEMAKER_BIND_TO_PORT": "{port}",
            "BIND_ADDRESS": "127.0.0.1",
        }
        server = Server([sys.executable, "-m", "inference", "serve"], environment, "/invocations")
        yield Compared(KENNEL + short, server, precision)
    peers = {
        "PYTHONPATH": f"{_installed()}:{ROOT}",
        "WEIGHTS": str(models / "f32" / "model" / "weights.pt"),
    }
    module = "benchmarks.lib.servers_compared"
    fastapi = [sys.executable, "-m", "uvicorn", "--factory", f"{module}:fastapi_app", "--port", "{port}"]
    yield Compared(PEERS[0], Server(fastapi, peers, "/predict"))
    litserve = [sys.executable, "-m", "benchmarks.lib.litserve_app", "{port}"]
    yield Compared(PEERS[1], Server(litserve, peers, "/predict", json_field="image_data"))


def kennel_variables(models: Path, precision: str) -> dict[str, str]:
    """Return what chooses artifact and precision: int8 is another artifact, bfloat16 another arithmetic of the same."""
    return {"OPT_ML": str(models / ("int8" if precision == "int8" else "f32")), "PRECISION": PRECISIONS[precision]}


def best_class(body: bytes) -> str:
    """Return the likeliest class of an answer; raise ValueError where it does not hold all classes' probabilities."""
    answer: Any = json.loads(body)
    if not isinstance(answer, dict) or sorted(answer.get("classes", ())) != CLASSES:
        raise ValueError("the answer has not the classes")
    shares = dict(zip(answer["classes"], answer.get("probabilities", ()), strict=True))
    if not all(isinstance(share, float) and 0 <= share <= 1 for share in shares.values()):
        raise ValueError("the answer has something else than probabilities")
    if abs(sum(shares.values()) - 1) > _SLACK:
        raise ValueError(f"the probabilities sum to {sum(shares.values()):.3f}")
    return str(max(shares, key=lambda name: shares[name]))


def kennel_megabytes() -> float:
    """Return the millions of bytes of all packages of the server's image, as they are installed here.

    Compiled files count; what the image's build takes out again does not.
    """
    names = _listed(ROOT / "inference" / "requirements.txt")
    files = [Path(str(file.locate())) for name in names for file in distribution(name).files or ()]
    unused = slim.unused(Path(sysconfig.get_path("platlib")))
    return (sum(file.stat().st_size for file in files if file.is_file()) - sum(map(slim.size, unused))) / 1e6


def _listed(requirements: Path) -> list[str]:
    """Return the names in a requirements file, those of files that it names (-r) included."""
    lines = [line.split("#")[0].strip() for line in requirements.read_text("utf-8").splitlines()]
    others = [name for line in lines if line.startswith("-r ") for name in _listed(requirements.with_name(line[3:]))]
    return others + [Requirement(line).name for line in lines if line and not line.startswith("-r ")]


def _installed() -> Path:
    """Return a folder for sys.path with the peers and what they need, in the user's cache; torch is the environment's.

    Raise NotServed with pip's last line.
    """
    pins = "-".join(line for line in _REQUIREMENTS.read_text().split() if "==" in line).replace("==", "-")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kennel-benchmarks"
    folder = cache / f"python{sys.version_info[0]}.{sys.version_info[1]}-{pins}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as fresh:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            output_of(start([*command, "--target", f"{fresh}/packages", "--requirement", str(_REQUIREMENTS)]))
        except RuntimeError as error:
            raise NotServed(f"not installed: {str(error).strip().splitlines()[-1][:200]}") from error
        shutil.move(f"{fresh}/packages", folder)
    return folder


@functools.cache
def network() -> tuple[Any, Any]:
    """Return the network of the weights file in WEIGHTS, and torchvision's usual transform."""
    import torch
    import torchvision  # type: ignore[import-untyped]
    from torchvision import transforms

    model = torchvision.models.resnet50(weights=None, num_classes=len(CLASSES))
    model.load_state_dict(torch.load(os.environ["WEIGHTS"], weights_only=True))
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    steps = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalize]
    return model.eval(), transforms.Compose(steps)


def fastapi_app() -> Any:
    """Return the FastAPI application: `uvicorn --factory benchmarks.lib.servers_compared:fastapi_app`."""
    import torch
    from fastapi import FastAPI, Request  # type: ignore[import-not-found,unused-ignore]
    from PIL import Image

    app = FastAPI()
    model, transform = network()

    async def predict(request: Request) -> dict[str, Any]:
        picture = Image.open(io.BytesIO(await request.body())).convert("RGB")
        with torch.no_grad():
            probabilities = model(transform(picture).unsqueeze(0)).softmax(1)[0]
        return {"probabilities": probabilities.tolist(), "classes": CLASSES}

    app.post("/predict")(predict)
    return app
