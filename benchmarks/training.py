"""Training, side by side with the recipes that people use. `--json FILE` writes the figures.

Head: the reference recipe (every image through the whole network in each epoch) against Kennel's head mode, on the same
images, cores and epochs; the lower bound is decoding and one forward pass over the same images, each at the best rate
that this machine reached. Whole network: torchvision's recipe against Kennel's. Ranks: two of one core each against
one. All of it takes a quarter of an hour.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As `python -m` has it: beside this file its own name would hide the package `training`.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib import report  # noqa: E402
from benchmarks.lib.photographs import write_views  # noqa: E402
from benchmarks.lib.processes import output_of, result_of, start, start_module  # noqa: E402
from benchmarks.lib.report import Figures  # noqa: E402
from kennel.rehearsal.containers.local import free_port  # noqa: E402
from kennel.rehearsal.jobs.contract import resource_config, write_config  # noqa: E402

BATCH_SIZE, LEARNING_RATE = 256, 0.0029  # the reference workload's
WHOLE_BATCH_SIZE = 32  # torchvision's
WORKLOAD = 6680 + 835  # images of the reference workload's train and valid splits
TARGETS = {
    "head_ratio": "at least 55",
    "head_over_floor": "at most 1.3",
    "whole_network_ratio": "at least 1.5",
    "rank_efficiency": "at least 0.9",
}


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--photos", type=Path, help="photographs whose views are the images (default: generated ones)")
    parser.add_argument("--scenes", type=int, default=40, help="classes (default 40)")
    parser.add_argument("--train", type=int, default=16, help="training images per class (default 16)")
    parser.add_argument("--valid", type=int, default=4, help="validation images per class (default 4)")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of both heads (default 10)")
    parser.add_argument("--whole-images", type=int, default=256, help="images of a whole-network epoch (default 256)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(arguments, Path(folder))
    show(figures)
    report.write_json(figures, arguments.json)


def measure(arguments: argparse.Namespace, folder: Path) -> Figures:
    """Run everything, one after the other, and return all figures."""
    images = write_views(
        folder / "images", arguments.photos, scenes=arguments.scenes, train=arguments.train, valid=arguments.valid
    )
    weights = folder / "resnet50.pth"
    _run("weights", data=images, weights=weights)
    figures: Figures = {"machine": report.describe_machine(), "epochs": arguments.epochs}
    figures["images"] = {split: arguments.scenes * getattr(arguments, split) for split in ("train", "valid")}
    figures["head"] = head(images, weights, arguments.epochs, folder)
    per_class = max(1, round(arguments.whole_images / arguments.scenes))
    some = write_views(folder / "some", arguments.photos, scenes=arguments.scenes, train=per_class, valid=1)
    figures["whole"] = whole(some, folder)
    figures["ranks"] = ranks(images, some, weights, folder)
    return figures | summary(figures)


def head(images: Path, weights: Path, epochs: int, folder: Path) -> Figures:
    """Return the seconds of the reference recipe and of Kennel's head mode, and the lower bound's images a second."""
    with _announced("the reference recipe"):
        settings = {"batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE}
        reference = _run("head", data=images, weights=weights, epochs=epochs, **settings)
    with _announced("Kennel's head mode"):
        data = prepare(images, weights, folder / "head")
        log = train(data, folder / "head-run", _head_settings(epochs))
    ours = {
        "features_seconds": sum(log.number(f"features split={split}", "seconds") for split in ("train", "valid")),
        "backbone_seconds": log.number("backbone", "seconds"),
        "head_seconds": log.number("head", "seconds"),
        "total_seconds": log.seconds,
        "arithmetic": log.text("backbone", "precision"),
        "valid_accuracy": log.number("epoch", "valid_accuracy"),
    }
    with _announced("the lower bound"):
        floor = _run("bound", data=images / "train")
    return {"reference": reference, "kennel": ours, "floor": floor}


def whole(images: Path, folder: Path) -> Figures:
    """Return images a second of the second epoch, which has nothing left to warm up."""
    with _announced("torchvision's recipe"):
        reference = _run("whole", data=images, epochs=2, batch_size=WHOLE_BATCH_SIZE)
    data = prepare(images, None, folder / "whole")
    with _announced("Kennel's whole-network mode"):
        log = train(data, folder / "whole-run", _whole_settings(WHOLE_BATCH_SIZE))
    return {
        "reference": {"images_per_second": reference["images_per_second"][-1]},
        "kennel": {
            "images_per_second": log.number("epoch", "images_per_second"),
            "precision": log.text("model", "precision"),
        },
    }


def ranks(images: Path, some: Path, weights: Path, folder: Path) -> Figures:
    """Return images a second of one rank and of two, each bound to a core of its own."""
    figures: Figures = {}
    data = prepare(images, weights, folder / "ranks-head")
    for count in (1, 2):
        with _announced(f"features, {count} of one core"):
            log = train(data, folder / f"features-{count}", _head_settings(1), cores=range(count))
        figures[f"features_{count}"] = log.number("features split=train", "images_per_second")
    data = prepare(some, None, folder / "ranks-whole")
    for count in (1, 2):
        settings = _whole_settings(WHOLE_BATCH_SIZE * count)
        with _announced(f"whole network, {count} of one core"):
            log = train(data, folder / f"whole-{count}", settings, cores=range(count))
        figures[f"whole_{count}"] = log.number("epoch", "images_per_second")
    return figures


def summary(figures: Figures) -> Figures:
    """Return the ratios. Start-up (imports, building, exporting, calibrating) is outside head_ratio, on both sides."""
    reference, ours, floor = (figures["head"][name] for name in ("reference", "kennel", "floor"))
    count = sum(figures["images"].values())
    steady = ours["features_seconds"] + ours["head_seconds"]
    start = ours["total_seconds"] - steady
    least = count / max(floor["decode"].values()) + count / max(floor["forward"].values())
    epochs_seconds, scale = sum(reference["epoch_seconds"]), WORKLOAD / count
    speeds = figures["ranks"]
    efficiencies = {kind: speeds[f"{kind}_2"] / (2 * speeds[f"{kind}_1"]) for kind in ("features", "whole")}
    whole_speeds = {name: figures["whole"][name]["images_per_second"] for name in ("reference", "kennel")}
    return {
        "head_ratio": epochs_seconds / steady,
        "head_ratio_with_start": (epochs_seconds + reference["start_seconds"]) / ours["total_seconds"],
        "head_ratio_at_workload": (epochs_seconds * scale + reference["start_seconds"]) / (steady * scale + start),
        "head_over_floor": ours["features_seconds"] / least,
        "floor_seconds": least,
        "whole_network_ratio": whole_speeds["kennel"] / whole_speeds["reference"],
        "rank_efficiency": min(efficiencies.values()),
        "rank_efficiency_of": efficiencies,
        "accuracy_reference": reference["valid_accuracy"][-1],
        "accuracy_kennel": ours["valid_accuracy"],
    }


def show(figures: Figures) -> None:
    reference, ours, floor = (figures["head"][name] for name in ("reference", "kennel", "floor"))
    images, epochs, speeds = figures["images"], figures["epochs"], figures["ranks"]
    efficiencies = figures["rank_efficiency_of"]
    count, seconds = sum(images.values()), sum(reference["epoch_seconds"])
    features, accuracy = ours["features_seconds"], reference["valid_accuracy"][-1]
    print(f"{figures['machine']}\nResNet-50 at 224, {images['train']} + {images['valid']} images, {epochs} epochs\n")
    rows: list[tuple[report.Cell, ...]] = [
        ("reference recipe", seconds, epochs * count / seconds, accuracy),
        (f"Kennel: features, {ours['arithmetic']}", features, count / features, None),
        ("Kennel: head", ours["head_seconds"], None, ours["valid_accuracy"]),
    ]
    for part, rates in (("decoding", floor["decode"]), ("forward", floor["forward"])):
        rows += [(f"lower bound: {part}, {kind}", count / rate, rate, None) for kind, rate in rates.items()]
    report.print_table("Head", ("", "seconds", "images/s", "valid accuracy"), rows)
    rows = [(name, found["images_per_second"]) for name, found in figures["whole"].items()]
    report.print_table("Whole network", ("", "images/s"), rows)
    rows = [(name, speeds[f"{name}_1"], speeds[f"{name}_2"], share) for name, share in efficiencies.items()]
    report.print_table("Ranks of one core", ("", "1: images/s", "2: images/s", "efficiency"), rows)
    print(
        f"head_ratio with the start of both {figures['head_ratio_with_start']:.1f}; computed for {WORKLOAD:,} images, "
        f"start included, {figures['head_ratio_at_workload']:.1f}\n"
    )
    report.print_targets(figures, TARGETS)


def _head_settings(epochs: int) -> dict[str, Any]:
    return {"mode": "head", "epochs": epochs, "batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE}


def _whole_settings(batch_size: int) -> dict[str, Any]:
    return {"mode": "whole", "epochs": 2, "batch_size": batch_size}


def _run(name: str, **settings: Any) -> Any:
    return result_of(start_module("training_programs", name, json.dumps(settings, default=str)))


@contextmanager
def _announced(name: str) -> Iterator[None]:
    """Print on stderr what was running and for how long."""
    begun = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class RunLog:
    """The log of a run, and its duration in seconds."""

    log: str
    seconds: float

    def number(self, line: str, name: str) -> float:
        """Return `name=NUMBER` of the last line that begins with `line`."""
        return float(self.text(line, name))

    def text(self, line: str, name: str) -> str:
        """Return `name=TEXT` of the last line that begins with `line`; raise RuntimeError where there is none."""
        found = re.findall(rf"^{line}\b.*?\b{name}=(\S+)", self.log, re.MULTILINE)
        if not found:
            raise RuntimeError(f"The log has no {name}= in a line that begins with {line!r}:\n{self.log}")
        return str(found[-1])


def prepare(dataset: Path, weights: Path | None, folder: Path) -> Path:
    """Run Prepare on class folders; return the folder that holds the input channels."""
    given = folder / "processing" / "input" / "dataset"
    shutil.copytree(dataset, given)
    if weights:
        (given / "weights").mkdir()
        shutil.copy(weights, given / "weights" / weights.name)
        named = {"file": weights.name, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
        (given / "dataset.json").write_text(json.dumps({"weights": named}))
    output_of(start([sys.executable, "-m", "training", "prepare"], OPT_ML=str(folder)))
    made, data = folder / "processing" / "output", folder / "input" / "data"
    data.mkdir(parents=True)
    for channel in ("train", "valid"):
        shutil.move(made / "data" / channel, data / channel)
    shutil.move(made / "weights", data / "weights")
    return data


def train(data: Path, folder: Path, settings: Mapping[str, Any], *, cores: Sequence[int] = ()) -> RunLog:
    """Return the first host's log of training on the channels in `data`; raise RuntimeError with the log if it fails.

    One host for each of `cores`, bound to that core; without them one host on all cores.
    """
    hosts = [f"algo-{place + 1}" for place in range(max(1, len(cores)))]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} | ({"OMP_NUM_THREADS": "1"} if cores else {})
    begun, children = time.perf_counter(), []
    for place, host in enumerate(hosts):
        _write(folder / host / "input", data, host, hosts, settings)
        bound = ["taskset", "--cpu-list", str(cores[place])] if cores else []
        command = [*bound, sys.executable, "-m", "training", "train"]
        children.append(start(command, OPT_ML=str(folder / host), **common))
    logs = [output_of(child) for child in children]
    return RunLog(logs[0], time.perf_counter() - begun)


def _write(given: Path, data: Path, host: str, hosts: Sequence[str], settings: Mapping[str, Any]) -> None:
    hyperparameters = {name: str(value) for name, value in settings.items()}
    resources = resource_config("", hosts, host)
    write_config(given / "config", {"hyperparameters": hyperparameters, "resourceconfig": resources})
    (given / "data").symlink_to(data)


if __name__ == "__main__":
    main()
