"""What a finished run leaves: a model that says how sure it is, what it was made of, and its passport."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from tests.contracts import validate  # noqa: E402
from tests.training.small import pack, solid, write_split  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.distributed.process_group import ProcessGroup  # noqa: E402
from training.errors import TrainingError  # noqa: E402
from training.hyperparameters import Hyperparameters  # noqa: E402
from training.passport import file_sha256  # noqa: E402
from training.paths import Paths  # noqa: E402
from training.train import run as running  # noqa: E402
from training.train.context import TrainedModel, TrainingContext  # noqa: E402
from training.train.export import export  # noqa: E402
from training.train.run import save_model  # noqa: E402

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
METRICS = {"train_loss": 0.9, "valid_loss": 0.8, "valid_accuracy": 0.75}
HISTORY = [{"epoch": 1, "train_loss": 0.9, "valid_loss": 0.8, "valid_accuracy": 0.75, "images_per_second": 9.0}]
# Three of four right, all of them as sure as can be: too sure.
LOGITS = [[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 0.0]]


class _Network(torch.nn.Module):  # type: ignore[misc,name-defined,unused-ignore]  # torch may be absent
    """Exported in a moment: what it answers is nothing to these tests."""

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, 2)

    def forward(self, images: Any) -> Any:
        return self.head(images.mean((2, 3)))


@pytest.fixture
def finished(opt_ml: Paths) -> Callable[..., dict[str, Any]]:
    """Finish a run with these validation logits; return model.json."""

    def run(logits: list[list[float]] = LOGITS, int8: str = "no", **settings: Any) -> dict[str, Any]:
        write_split(opt_ml.channel("train"), [(number % 2, solid(number, 50)) for number in range(6)])
        write_split(opt_ml.channel("valid"), [(number % 2, solid(number, 90)) for number in (0, 2, 1, 3)])
        opt_ml.channel("weights").mkdir(parents=True)
        (opt_ml.channel("weights") / "weights.json").write_text('{"file": null}')
        chosen = Hyperparameters(image_size=32, int8=int8, **settings)
        with ProcessGroup.initialize(torch.device("cpu")) as group:
            context = TrainingContext(opt_ml, chosen, group)
            trained = TrainedModel(_Network(), chosen, torch.tensor(logits), METRICS, HISTORY, [{"trial": 1}])
            clock = running.Clock()
            clock.lap("start")
            clock.lap("learning")
            save_model(context, trained, clock)
        record: dict[str, Any] = json.loads((opt_ml.model / "model.json").read_text("utf-8"))
        validate("model", record)
        validate("passport", json.loads((opt_ml.model / "passport.json").read_text("utf-8")))
        return record

    return run


def test_the_model_says_how_sure_it_may_be(
    finished: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    record = finished(abstain_coverage=0.5)
    assert record["temperature"] > 3
    calibration = record["calibration"]
    assert calibration["error_before"] == pytest.approx(0.25, abs=0.001)
    assert calibration["error_after"] < 0.15
    assert calibration["samples"] == 4
    assert record["abstain"]["coverage"] == 1.0  # all four have the same confidence
    assert record["abstain"]["precision"] == 0.75
    assert "calibrated temperature=" in (logged := capsys.readouterr().out)
    assert "on validation it answers 100.0%, of which 75.0% are right" in logged


def test_a_precision_that_cannot_be_reached_is_logged(
    finished: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert finished(abstain_precision=0.9)["abstain"] is None
    assert "no threshold makes 90.0% of the answers right on validation" in capsys.readouterr().out


def test_the_model_says_what_it_was_made_of(finished: Callable[..., dict[str, Any]], opt_ml: Paths) -> None:
    opt_ml.config.mkdir(parents=True)
    config = {"current_host": "a", "hosts": ["a", "b"], "current_instance_type": "ml.m5.xlarge"}
    (opt_ml.config / "resourceconfig.json").write_text(json.dumps(config))
    record = finished(precision="float32")
    assert record["data"] == {"fingerprint": "ab12", "train_images": 6, "valid_images": 4}
    assert sorted(record["trained_on"]["phases"]) == ["export", "learning", "start"]
    assert record["trained_on"].pop("seconds") == pytest.approx(sum(record["trained_on"].pop("phases").values()))
    assert record["trained_on"] == {
        "instance_type": "ml.m5.xlarge",
        "instances": 2,
        "workers": 1,
        "device": "cpu",
        "precision": "float32",
    }
    assert record["metrics"] == {"train_loss": 0.9, "valid_loss": 0.8, "valid_accuracy": 0.75}
    assert (record["history"], record["trials"]) == (HISTORY, [{"trial": 1}])
    assert record["hyperparameters"]["mode"] == "whole"  # and not `auto`


def test_a_run_without_sagemakers_configuration_names_no_instance(finished: Callable[..., dict[str, Any]]) -> None:
    trained_on = finished()["trained_on"]
    assert (trained_on["instance_type"], trained_on["instances"]) == ("", 1)


def test_record_log_and_passport_name_what_was_exported(
    finished: Callable[..., dict[str, Any]],
    opt_ml: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRAINING_IMAGE", "registry/image:7")
    record = finished(int8="auto")
    exports, log = record["exports"], capsys.readouterr().out
    assert {name: one["accepted"] for name, one in exports.items()} == {"float32": True, "int8": True}
    assert exports["int8"]["images"] == 4  # the validation split
    assert "export format=float32 file=model.xml agreement=1 largest_change=" in log
    assert "export format=int8 file=model-int8.xml agreement=1 largest_change=" in log
    passport = json.loads((opt_ml.model / "passport.json").read_text("utf-8"))
    assert passport["image"] == "registry/image:7"
    for key in ("data", "hyperparameters", "metrics"):
        assert passport[key] == record[key]
    names = {file.name for file in opt_ml.model.iterdir()} - {"passport.json"}
    assert names == {
        "model.json",
        "model.xml",
        "model.bin",
        "model-int8.xml",
        "model-int8.bin",
        "weights.pt",
        "known.npy",
    }
    assert passport["files"] == {name: file_sha256(opt_ml.model / name) for name in names}


def test_the_settings_choose_the_formats(finished: Callable[..., dict[str, Any]], opt_ml: Paths) -> None:
    exports = finished(runtime="torch")["exports"]
    assert exports["int8"] == {"accepted": False, "reason": "hyperparameter int8 is 'no'"}
    assert exports["pt2"]["accepted"] is True
    passport = json.loads((opt_ml.model / "passport.json").read_text("utf-8"))
    assert set(passport["files"]) == {"model.json", "model.xml", "model.bin", "model.pt2", "weights.pt", "known.npy"}


def test_the_model_knows_its_training_images_by_the_embedding_that_it_gives(
    finished: Callable[..., dict[str, Any]], opt_ml: Paths
) -> None:
    record = finished()["known"]
    assert (record["file"], record["images"], record["samples"], record["threshold"]) == ("known.npy", 6, 4, None)
    assert record["note"].startswith("4 validation images are too few")
    rows = np.load(opt_ml.model / "known.npy").astype(np.float32)
    images = np.zeros((1, 3, 32, 32), np.float32) + np.array([5 / 255, 50 / 255, 0], np.float32)[:, None, None]
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (MEAN, STD))
    embedding = openvino.Core().compile_model(opt_ml.model / "model.xml", "CPU")((images - mean) / std)["embedding"][0]
    assert rows[5] == pytest.approx(embedding / np.linalg.norm(embedding), abs=2e-3)


def test_int8_takes_its_scales_from_training_images_and_is_judged_by_validation_images(
    finished: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def noted(model: Any, samples: Any, labels: Any, folder: Path, *, calibration: Any, **given: Any) -> Any:
        seen.update(samples=samples, labels=labels, calibration=calibration)
        return export(model, samples, labels, folder, **given)

    monkeypatch.setattr(running, "export", noted)
    finished(int8="auto")
    green = [
        round(float(images[:, 1].mean() * 0.224 + 0.456) * 255) for images in (seen["samples"], seen["calibration"])
    ]
    assert green == [90, 50]
    assert [len(images) for images in seen.values()] == [4, 4, 6]
    assert seen["labels"].tolist() == [0, 0, 1, 1]


def test_the_evaluation_takes_what_was_finished(finished: Callable[..., dict[str, Any]], opt_ml: Paths) -> None:
    record = finished()
    pack(opt_ml.model, opt_ml.processing_input("model") / "model.tar.gz")
    write_split(opt_ml.processing_input("test"), [(number % 2, solid(number, 70)) for number in range(3)])
    assert main(["evaluate"]) == 0
    report = json.loads((opt_ml.processing_output("evaluation") / "evaluation.json").read_text("utf-8"))
    assert report["passport"]["sha256"] == file_sha256(opt_ml.model / "passport.json")
    assert report["abstain"]["threshold"] == record["abstain"]["threshold"]


def test_a_network_that_answers_nan_leaves_no_model(finished: Callable[..., dict[str, Any]], opt_ml: Paths) -> None:
    with pytest.raises(TrainingError, match="infinite or undefined"):
        finished([[float("nan"), 0.0]] * 4)
    assert not (opt_ml.model / "model.json").exists()
