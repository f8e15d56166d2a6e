"""The Evaluate job on models whose answers are known."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contracts import validate
from tests.training.small import CLASSES, Labelled, pack, solid, write_model, write_split
from training.__main__ import main
from training.distributed import cluster
from training.errors import TrainingError
from training.evaluate import artifact
from training.evaluate.run import summarize
from training.evaluate.scores import interval
from training.passport import code_sha256, file_sha256, write_passport
from training.paths import Paths

GREEN, RED = 0, 1
EIGHT: list[Labelled] = [
    *((GREEN, solid(number, 250)) for number in range(3)),
    *((RED, solid(250, number)) for number in range(4)),
    (RED, solid(7, 250)),  # lies in the wrong class
]
FOUR = [EIGHT[0], EIGHT[1], EIGHT[2], EIGHT[7]]  # of which the model gets three right
INT8: dict[str, Any] = {
    "exports": {"float32": {"accepted": True}, "int8": {"file": "model-int8.xml", "accepted": True}}
}

Measured = Callable[..., dict[str, Any]]
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def without_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests find the same on every machine."""
    monkeypatch.setattr(artifact, "supports_bfloat16", lambda: False)


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    """Return the content of evaluation.json for a model of these settings, without the job around it."""

    def measure(images: list[Labelled] = EIGHT, **model: Any) -> dict[str, Any]:
        split = write_split(tmp_path / "test", images)
        write_model(tmp_path / "model", **model)
        loaded = artifact.load(tmp_path / "model")
        return summarize(artifact.classify(loaded, split), split, loaded, artifact.Provenance())

    return measure


@pytest.fixture
def inputs(opt_ml: Paths, tmp_path: Path) -> Callable[..., Path]:
    """Write both inputs of the job and return the folder from which the archive was packed."""

    def write(images: list[Labelled] = FOUR, tested: tuple[str, ...] = CLASSES, **model: Any) -> Path:
        write_split(opt_ml.processing_input("test"), images, tested)
        record = write_model(tmp_path / "model", **model)
        write_passport(tmp_path / "model", record, image="registry/image:1")
        pack(tmp_path / "model", opt_ml.processing_input("model") / "model.tar.gz")
        return tmp_path / "model"

    return write


def test_the_job_measures_the_exported_model(
    inputs: Callable[..., Path], opt_ml: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {"history": [{"epoch": 1, "valid_accuracy": 0.9}], "trained_on": {"instance_type": "ml.m5.xlarge"}}
    model = inputs(EIGHT, int8=-10.0, abstain={"threshold": 0.7, "coverage": 1.0, "precision": 0.99}, **INT8, **record)
    assert main(["evaluate"]) == 0
    output = opt_ml.processing_output("evaluation")
    assert {file.name for file in output.iterdir()} == {
        "evaluation.json",
        "report.html",
        "probes",
        "drift-reference.npz",
    }
    report = json.loads((output / "evaluation.json").read_text("utf-8"))
    validate("evaluation", report)
    metrics = {name: metric["value"] for name, metric in report["metrics"].items()}
    assert metrics["accuracy"] == 7 / 8
    assert metrics["accuracy_lower"] == pytest.approx(interval(7, 8)[0])
    assert metrics["top5_accuracy"] == 1.0
    assert metrics["worst_classes_recall"] == pytest.approx((1 + 4 / 5) / 2)
    assert (report["format"], report["test_samples"], report["classes"]) == (1, 8, ["green", "red"])
    assert report["confusion_pairs"] == [{"true": "red", "predicted": "green", "count": 1}]
    assert [row["support"] for row in report["per_class"]] == [3, 5]
    assert {"name": "red/7.png", "label": "red", "predicted": "green"}.items() <= report["samples"][-1].items()
    assert report["passport"] == {
        "sha256": file_sha256(model / "passport.json"),
        "data_fingerprint": "ab12",
        "code_sha256": code_sha256(),
        "image": "registry/image:1",
    }
    assert record.items() <= report["model"].items()
    assert report["model"]["data"] == {"fingerprint": "ab12"}
    assert "accuracy by precision: float32=0.875000 int8=0.125000\n" in capsys.readouterr().out


def test_an_artifact_of_an_early_version_is_evaluated_without_what_it_lacks(measured: Measured) -> None:
    report = measured()
    validate("evaluation", report)
    assert set(report["passport"].values()) == {None}
    assert report["abstain"] is None
    assert report["metrics"]["uncalibrated_error"] == report["metrics"]["expected_calibration_error"]


def test_the_temperature_makes_the_answers_less_sure_and_changes_no_class(measured: Measured) -> None:
    report = measured([(GREEN, solid(0, 255)), (RED, solid(0, 255))], temperature=10.0)
    confidence = 1 / (1 + math.exp(-1))  # logits 10 and 0, divided by 10
    assert report["samples"][0]["probability"] == pytest.approx(confidence)
    assert report["metrics"]["expected_calibration_error"]["value"] == pytest.approx(confidence - 0.5)
    assert report["metrics"]["uncalibrated_error"]["value"] == pytest.approx(1 / (1 + math.exp(-10)) - 0.5)
    assert report["metrics"]["accuracy"]["value"] == 0.5


@pytest.mark.parametrize(
    ("others", "coverage", "precision"), [(EIGHT[:7], 7 / 8, 1.0), ([], 0.0, None)], ids=["some", "none"]
)
def test_the_threshold_is_measured_on_the_test_split(
    others: list[Labelled], coverage: float, precision: float | None, measured: Measured
) -> None:
    unsure = (RED, solid(120, 125))  # taken for green, logits 0.2 apart
    report = measured([*others, unsure], abstain={"threshold": 0.7, "coverage": 1.0, "precision": 0.99})
    assert report["abstain"] == {"threshold": 0.7, "coverage": coverage, "precision": precision}


KNOWN = {
    "file": "known.npy",
    "images": 1,
    "neighbours": 1,
    "threshold": 0.9,
    "coverage": 0.97,
    "unseen_refused": None,
    "note": "",
}


def test_the_distance_threshold_is_measured_in_each_precision_that_is_offered(measured: Measured) -> None:
    model = {"reference": [(0.0, 1.0, 0.0)], "known": KNOWN, "int8": -10.0}  # green alone is known
    report = measured(EIGHT, abstain={"threshold": 0.7}, **model, **INT8)
    validate("evaluation", report)
    assert report["known"] == {
        "threshold": 0.9,
        "kept": {"float32": 0.5, "int8": 0.5},
        "least_kept": [{"class": "red", "kept": 0.2}],
    }
    assert report["verdicts"] == {"right": 3, "wrong": 1, "not_sure": 0, "none_of_these": 4}


@pytest.mark.parametrize("record", [None, {**KNOWN, "threshold": None}])
def test_without_a_distance_threshold_every_image_counts_as_known(
    record: dict[str, Any] | None, measured: Measured
) -> None:
    report = measured(EIGHT, reference=[(0.0, 1.0, 0.0)], known=record)
    assert report["known"] is None
    assert report["verdicts"] == {"right": 7, "wrong": 1, "not_sure": 0, "none_of_these": 0}


def test_a_reference_that_the_embedding_does_not_fit_is_refused(measured: Measured) -> None:
    with pytest.raises(TrainingError, match=r"no embedding for the reference in known\.npy; train it again"):
        measured(EIGHT, reference=[(0.0, 1.0)], known=KNOWN)


def test_a_release_is_probed_with_photos_that_the_model_names_a_class_for(
    inputs: Callable[..., Path], opt_ml: Paths
) -> None:
    inputs(EIGHT, reference=[(0.0, 1.0, 0.0)], known=KNOWN)
    assert main(["evaluate"]) == 0
    probes = json.loads((opt_ml.processing_output("evaluation") / "probes" / "probes.json").read_text("utf-8"))
    assert {one["label"] for one in probes["probes"]} == {"green"}


def test_one_image_is_enough(measured: Measured) -> None:
    report = measured(EIGHT[:1])
    assert report["metrics"]["accuracy"] == {"value": 1.0}
    assert report["metrics"]["accuracy_lower"]["value"] == pytest.approx(0.2065, abs=1e-4)
    assert report["metrics"]["worst_classes_recall"] == {"value": 1.0}


@pytest.mark.parametrize(("scale", "int8"), [(10.0, -10.0), (-10.0, 10.0)])
def test_the_gate_sees_the_least_accurate_precision_that_is_offered(
    scale: float, int8: float, measured: Measured
) -> None:
    report = measured(FOUR, scale=scale, int8=int8, **INT8)  # a negative scale takes each class for the other
    hits = {"float32": 3 if scale > 0 else 1, "int8": 3 if int8 > 0 else 1}
    assert report["precisions"] == {
        name: {"accuracy": count / 4, "accuracy_lower": pytest.approx(interval(count, 4)[0])}
        for name, count in hits.items()
    }
    assert report["metrics"]["served_accuracy_lower"]["value"] == pytest.approx(interval(1, 4)[0])
    assert report["metrics"]["accuracy"]["value"] == hits["float32"] / 4


@pytest.mark.parametrize("exports", [None, {}, {"int8": {"accepted": False, "reason": "too inaccurate"}}])
def test_what_is_not_offered_is_not_measured(exports: Any, measured: Measured) -> None:
    report = measured(FOUR, int8=-10.0, exports=exports)
    assert list(report["precisions"]) == ["float32"]
    assert report["metrics"]["served_accuracy_lower"] == report["metrics"]["accuracy_lower"]


def test_bfloat16_is_measured_on_processors_that_have_it(measured: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "supports_bfloat16", lambda: True)
    report = measured(FOUR, int8=10.0, **INT8)
    assert list(report["precisions"]) == ["float32", "bfloat16", "int8"]
    assert report["precisions"]["bfloat16"]["accuracy"] == 0.75


@pytest.mark.skipif(not cluster.supports_bfloat16(), reason="this processor has no bfloat16 instructions")
def test_each_precision_is_compiled_as_it_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "supports_bfloat16", lambda: True)
    write_model(tmp_path, int8=5.0, **INT8)
    compiled = artifact.load(tmp_path).compiled
    hints = {name: str(one.get_property("INFERENCE_PRECISION_HINT")) for name, one in compiled.items()}
    assert (hints["float32"], hints["int8"]) == ("<Type: 'float32'>", "<Type: 'float32'>")
    assert hints["bfloat16"] != hints["float32"]


def test_images_are_classified_in_batches_in_the_splits_order(tmp_path: Path) -> None:
    labels = [int(number % 3 == 0) for number in range(2 * artifact.BATCH + 3)]
    images = [(label, solid(250, 0) if label else solid(0, 250)) for label in labels]
    split = write_split(tmp_path / "split", images)
    write_model(tmp_path / "model")
    answers = artifact.classify(artifact.load(tmp_path / "model"), split)["float32"]
    assert len(answers) == len(images)
    assert answers.right.all()
    assert answers.labels.tolist() == labels


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"scale": math.nan}, "infinite or undefined"),
        ({"tested": ("blue", "green")}, "different classes (the model does not know 'blue'; the test split lacks 'red"),
        ({"tested": CLASSES[::-1]}, "in another order"),
        (
            {"classes": ("blue", "green", "red"), "tested": ("blue", "green", "red"), "images": EIGHT[:1]},
            "an array of shape [1, 2] for 1 images of 3 classes",
        ),
        *(
            ({name: value}, "model.json of the model is broken")
            for name, value in [
                ("temperature", 0),
                ("temperature", math.nan),
                ("temperature", "warm"),
                ("abstain", {"coverage": 1}),
                ("abstain", [1]),
                ("classes", 5),
                ("exports", 5),
                ("exports", {"int8": 5}),
                ("exports", [1]),
            ]
        ),
    ],
)
def test_an_unusable_model_is_refused_and_nothing_is_written(
    given: dict[str, Any], reason: str, inputs: Callable[..., Path], opt_ml: Paths, refused: Refused
) -> None:
    inputs(**given)
    assert reason in refused("evaluate")
    assert not opt_ml.processing_output("evaluation").exists()


@pytest.mark.parametrize("name", ["model-int8.xml", "model-int8.bin"])
def test_int8_that_is_offered_and_missing_is_refused(
    name: str, inputs: Callable[..., Path], opt_ml: Paths, refused: Refused
) -> None:
    model = inputs(int8=10.0, **INT8)
    (model / name).unlink()
    write_passport(model, json.loads((model / "model.json").read_text()), image="")
    pack(model, opt_ml.processing_input("model") / "model.tar.gz")
    assert "OpenVINO cannot load model-int8.xml" in refused("evaluate")


def test_probes_are_photos_of_all_classes_with_the_labels_that_the_model_gave(
    inputs: Callable[..., Path], opt_ml: Paths
) -> None:
    inputs(EIGHT)
    assert main(["evaluate"]) == 0
    folder = opt_ml.processing_output("evaluation") / "probes"
    content = json.loads((folder / "probes.json").read_text("utf-8"))
    validate("probes", content)
    labels = [one["label"] for one in content["probes"]]
    assert {*labels[:2]} == {*CLASSES}  # of each class in turn
    # The one that lies in the wrong class has the label that the model gave it.
    assert sorted(labels) == [CLASSES[GREEN]] * 4 + [CLASSES[RED]] * 4
    assert {(folder / one["file"]).read_bytes() for one in content["probes"]} == {data for _, data in EIGHT}


def test_each_picture_is_decoded_once_for_all_that_is_measured(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def noted(data: bytes, how: Any) -> Any:
        lengths.append(len(data))
        return decode(data, how)

    decode = artifact.decode
    monkeypatch.setattr(artifact, "decode", noted)
    report = measured(FOUR, **INT8, int8=10.0)
    assert len(lengths) == report["test_samples"] == 4
