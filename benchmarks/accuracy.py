"""What a frozen network's features hold, and what Kennel's head learns of it. `--json FILE` writes the figures.

Beside each other on the same class folders (train/, valid/, test/) and weights: `kennel train --local` with its
defaults, the same with more trials (`--tune`), and the best of a grid of scikit-learn's logistic regressions on
standardized float32 features, its C chosen on validation. With `--none` also how many photographs of a folder that
shows none of the classes are refused. Everything is seeded. On dogs120 it takes ten minutes.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

# As `python -m` has it: beside this file its own name would hide the package `training`.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib import report  # noqa: E402
from benchmarks.lib.processes import output_of, start  # noqa: E402
from benchmarks.lib.report import Figures  # noqa: E402
from training.evaluate.scores import interval  # noqa: E402

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Split = tuple[NDArray[Any], NDArray[Any]]  # features float32 [images, width], labels int64 [images]

SPLITS = ("train", "valid", "test")
GRID = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # C: the inverse of the penalty
SIZE, BATCH = 224, 8


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="train/, valid/, test/ with classes")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="a torchvision state_dict")
    parser.add_argument("--model", default="efficientnet_b0", help="architecture (default efficientnet_b0)")
    parser.add_argument("--none", type=Path, metavar="FOLDER", help="photographs that show none of the classes")
    parser.add_argument("--trials", type=int, default=64, help="trials of the tuned run (default 64)")
    arguments = parser.parse_args()
    figures = measure(arguments)
    show(figures)
    report.write_json(figures, arguments.json)


def measure(arguments: argparse.Namespace) -> Figures:
    figures: Figures = {"machine": report.describe_machine(), "model": arguments.model}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in (("", []), ("tuned_", ["--tune", str(arguments.trials)])):
            run = _kennel(arguments, Path(folder), options)
            figures |= {f"{name}{key}": value for key, value in _figures(run).items()}
            if arguments.none and not name:
                figures["none_of_these_recall"] = refused(run / "output" / "model.tar.gz", arguments.none)
    splits = {split: features(arguments.data / split, arguments.weights, arguments.model) for split in SPLITS}
    return figures | logistic_regression(splits) | {f"{name}_images": len(splits[name][1]) for name in SPLITS}


def _kennel(arguments: argparse.Namespace, runs: Path, options: list[str]) -> Path:
    """Return the folder of a run of `kennel train --local`. The second run finds the features of the first."""
    command = [str(Path(sys.executable).parent / "kennel"), "train", "--local", str(arguments.data), *options]
    command += ["--weights", str(arguments.weights), "--model", arguments.model, "--runs", str(runs), "--json"]
    output = output_of(start(command))  # progress, and then one JSON object
    return Path(json.loads(output[output.rindex("\n{\n") :])["folder"])


def _figures(run: Path) -> Figures:
    """Return what the model reaches on the test split, the share of it that counts as known, and its seconds."""
    evaluation = json.loads((run / "evaluation" / "evaluation.json").read_text())
    trained_on = evaluation["model"]["trained_on"]
    return {
        "accuracy": evaluation["metrics"]["accuracy"]["value"],
        "kept": evaluation["known"]["kept"]["float32"] if evaluation["known"] else None,
        "train_seconds": trained_on["seconds"],
        "phases": trained_on["phases"],
    }


def refused(archive: Path, photos: Path) -> float:
    """Return the share of a folder's photographs that the model takes for none of its classes."""
    import numpy as np

    from training.evaluate import artifact
    from training.transform import open_rgb, to_array

    with tempfile.TemporaryDirectory() as folder:
        artifact.unpack(archive, Path(folder))
        model = artifact.load(Path(folder))
    if model.reference is None or model.reference.threshold is None:
        return 0.0
    scores = []
    for file in sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")):
        outputs = model.compiled["float32"](to_array(open_rgb(file.read_bytes()), model.how)[None])
        scores.append(float(model.reference.scores(outputs["embedding"])[0]))
    return float((np.array(scores) < model.reference.threshold).mean())


def features(folder: Path, weights: Path, model: str) -> "Split":
    """Return the float32 features that the network without its head has of a split's photographs."""
    import numpy as np
    import openvino  # type: ignore[import-untyped]
    import torch

    from training.train.head.backbone import convert
    from training.train.model import Architecture, build_network, load_weights, remove_head
    from training.transform import Preprocessing, open_rgb, to_array

    network = build_network(Architecture(model, "standard", 1000))
    load_weights(network, Architecture(model, "standard", 1000), weights.name, torch.load(weights, weights_only=True))
    remove_head(network)
    hints = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(convert(network.eval(), SIZE), "CPU", hints)
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
    files = [(file, label) for label, name in enumerate(classes) for file in sorted((folder / name).iterdir())]
    how, rows = Preprocessing.for_image_size(SIZE), []
    for begin in range(0, len(files), BATCH):
        pixels = [to_array(open_rgb(file.read_bytes()), how) for file, _ in files[begin : begin + BATCH]]
        rows.append(np.array(compiled(np.stack(pixels))[0]))
    return np.concatenate(rows), np.array([label for _, label in files])


def logistic_regression(splits: "dict[str, Split]") -> Figures:
    """Return the accuracy on test of the regression that is best on validation."""
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]

    tried = []
    for penalty in GRID:
        fitted = make_pipeline(StandardScaler(), LogisticRegression(C=penalty, max_iter=2000)).fit(*splits["train"])
        tried.append((float(fitted.score(*splits["valid"])), float(fitted.score(*splits["test"])), penalty))
    valid, test, penalty = max(tried)
    return {"reference_accuracy": test, "reference_valid_accuracy": valid, "reference_c": penalty}


def show(figures: Figures) -> None:
    count = figures["test_images"]
    sizes = ", ".join(f"{figures[f'{name}_images']:,} {name}" for name in SPLITS)
    print(f"{figures['machine']}\n{figures['model']}, images: {sizes}\n")
    rows: list[tuple[report.Cell, ...]] = []
    for name, key in (("kennel train --local", ""), ("the same, tuned", "tuned_"), ("scikit-learn", "reference_")):
        accuracy = figures[f"{key}accuracy"]
        low, high = interval(round(accuracy * count), count)
        seconds = figures.get(f"{key}train_seconds")
        rows.append((name, f"{accuracy:.1%}", f"{low:.1%} to {high:.1%}", seconds))
    report.print_table("Right on test", ("", "accuracy", "95 % interval", "training s"), rows)
    if figures["kept"] is not None:
        recall = (
            f", {figures['none_of_these_recall']:.1%} of --none refused" if "none_of_these_recall" in figures else ""
        )
        print(f"known: {figures['kept']:.1%} of the test photographs kept{recall}")
    phases = " ".join(f"{name} {seconds:.0f} s" for name, seconds in figures["phases"].items())
    print(f"training in parts: {phases}")


if __name__ == "__main__":
    main()
