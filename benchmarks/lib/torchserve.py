"""TorchServe with its default handler for image classifiers, as AWS's retired image ran it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.lib import installed
from benchmarks.lib.cache import provide
from benchmarks.lib.servers import NotServed, Server

# Its handler imports captum; the rest of what they need is in the environment.
PACKAGES = ("torchserve==0.12.0", "torch-model-archiver==0.12.0", "captum==0.9.0")
_TOP = 5  # classes that its handler answers with

_NETWORK = """
from torchvision.models.resnet import Bottleneck, ResNet


class ImageClassifier(ResNet):
    def __init__(self):
        super().__init__(Bottleneck, [3, 4, 6, 3], num_classes={classes})
"""

_START = "import sys; sys.argv[0] = 'torchserve'; from ts.model_server import start; start()"


def torchserve(weights: Path, classes: list[str], folder: Path) -> Server:
    """Packs the model into `folder`; raises NotServed where Java or the packages are missing."""
    if not shutil.which("java"):
        raise NotServed("there is no Java")
    packages = provide(PACKAGES)
    store = folder / "store"
    store.mkdir(parents=True)
    environment = {"PYTHONPATH": str(packages), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    _archive(weights, classes, folder, environment)
    config = folder / "config.properties"
    config.write_text("enable_envvars_config=true\n")  # as in AWS's image; all else is its default
    return Server(
        "TorchServe 0.12",
        [
            *(sys.executable, "-c", _START, "--start", "--foreground", "--ncs", "--disable-token-auth"),
            *("--model-store", str(store), "--models", "classifier=classifier.mar", "--ts-config", str(config)),
        ],
        {**environment, **_addresses(folder)},
        "/predictions/classifier",
        _TOP,
    )


def _addresses(folder: Path) -> dict[str, str]:
    """Its own default ports might be another program's; only the first is asked."""
    return {
        "TS_INFERENCE_ADDRESS": "http://127.0.0.1:{port}",
        "TS_MANAGEMENT_ADDRESS": f"unix:{folder}/management",
        "TS_METRICS_ADDRESS": f"unix:{folder}/metrics",
        "TEMP": str(folder),  # where it makes its workers' sockets
    }


def _archive(weights: Path, classes: list[str], folder: Path, environment: dict[str, str]) -> None:
    (folder / "network.py").write_text(_NETWORK.format(classes=len(classes)))
    (folder / "index_to_name.json").write_text(json.dumps(dict(enumerate(classes))))
    options = {
        "--model-name": "classifier",
        "--version": "1.0",
        "--model-file": "network.py",
        "--serialized-file": str(weights),
        "--handler": "image_classifier",
        "--extra-files": "index_to_name.json",
        "--export-path": "store",
    }
    command = [sys.executable, "-c", "from model_archiver.model_packaging import generate_model_archive as g; g()"]
    done = subprocess.run(
        [*command, *(word for pair in options.items() for word in pair)],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotServed(f"the model was not packed: {(done.stderr.strip().splitlines() or ['?'])[-1][:200]}")


def megabytes() -> float:
    """Of its packages, Java left out."""
    folder = provide(PACKAGES)
    names = ["torchserve", "torch-model-archiver", "captum", "torch", "torchvision", "pyyaml"]
    return installed.megabytes(installed.with_dependencies(names, folder), folder)
