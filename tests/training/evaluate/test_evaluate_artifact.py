"""Archives that are broken, or whose files are not those of their provenance record (passport.json)."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.small import pack, solid, write_model, write_split
from training.errors import TrainingError
from training.evaluate.artifact import Provenance, unpack
from training.passport import write_passport
from training.paths import Paths


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path / "model")
    return tmp_path / "model"


def _unpack(model: Path) -> Provenance:
    pack(model, model.parent / "model.tar.gz")
    target = model.parent / "target"
    target.mkdir(exist_ok=True)
    return unpack(model.parent / "model.tar.gz", target)


@pytest.mark.parametrize("name", ["model.json", "model.xml", "model.bin", "weights.pt"])
def test_a_file_that_was_changed_is_named(model: Path, name: str) -> None:
    with (model / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(TrainingError, match=f"{name} is not the file that the model's passport.json names"):
        _unpack(model)


def test_a_file_that_the_record_names_must_be_there(model: Path) -> None:
    (model / "weights.pt").unlink()
    with pytest.raises(TrainingError, match=r"weights\.pt is not the file"):
        _unpack(model)


def test_a_reference_that_was_changed_is_named(tmp_path: Path) -> None:
    write_model(tmp_path / "model", reference=[(0.0, 1.0, 0.0)])
    with (tmp_path / "model" / "known.npy").open("ab") as file:
        file.write(b" ")
    with pytest.raises(TrainingError, match=r"known\.npy is not the file that the model's passport\.json names"):
        _unpack(tmp_path / "model")


def test_an_artifact_of_an_early_version_has_no_record(model: Path) -> None:
    (model / "passport.json").unlink()
    assert _unpack(model) == Provenance()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 1}', '{"files": {}, "data": 1}', "[" * 100_000])
def test_a_broken_record_is_refused(model: Path, text: str) -> None:
    (model / "passport.json").write_text(text)
    with pytest.raises(TrainingError, match=r"passport\.json of the model is broken"):
        _unpack(model)


def test_a_record_that_names_no_files_vouches_for_none(model: Path) -> None:
    content = json.loads((model / "passport.json").read_text())
    (model / "passport.json").write_text(json.dumps({**content, "files": {}}))
    with pytest.raises(TrainingError, match=r"model\.json is not the file"):
        _unpack(model)


def test_the_weights_are_checked_and_not_written(model: Path) -> None:
    _unpack(model)
    assert sorted(file.name for file in (model.parent / "target").iterdir()) == [
        "model.bin",
        "model.json",
        "model.xml",
        "passport.json",
    ]


def test_other_forms_are_checked_and_not_written(tmp_path: Path) -> None:
    model = tmp_path / "model"
    record = write_model(model, int8=1.0)
    for name in ("model.onnx", "model.pt2"):
        (model / name).write_bytes(b"sound")
    write_passport(model, record, image="")
    _unpack(model)
    written = {file.name for file in (tmp_path / "target").iterdir()}
    assert {"model-int8.xml", "model-int8.bin"} <= written
    assert not {"model.onnx", "model.pt2"} & written
    for name in ("model-int8.bin", "model.onnx", "model.pt2"):
        was = (model / name).read_bytes()
        (model / name).write_bytes(b"changed")
        with pytest.raises(TrainingError, match=f"{name} is not the file"):
            _unpack(model)
        (model / name).write_bytes(was)


@pytest.mark.parametrize("name", ["model-int8.xml", "model-int8.bin"])
def test_int8_that_the_record_does_not_name_is_refused(model: Path, name: str) -> None:
    (model / name).write_bytes(b"slipped in")
    with pytest.raises(TrainingError, match=f"{name} is not the file"):
        _unpack(model)


def test_an_archive_without_a_model_is_refused(model: Path) -> None:
    for name in ("model.json", "model.bin"):
        (model / name).unlink()
    with pytest.raises(TrainingError, match=r"has no model\.json, model\.bin;"):
        _unpack(model)


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08 cut"])
def test_a_broken_archive_is_refused(data: bytes, opt_ml: Paths, refused: Callable[..., str]) -> None:
    write_split(opt_ml.processing_input("test"), [(0, solid(1, 2))])
    opt_ml.processing_input("model").mkdir(parents=True)
    (opt_ml.processing_input("model") / "model.tar.gz").write_bytes(data)
    assert "model.tar.gz cannot be unpacked" in refused("evaluate")


def test_a_missing_model_is_refused(opt_ml: Paths, refused: Callable[..., str]) -> None:
    write_split(opt_ml.processing_input("test"), [(0, solid(1, 2))])
    assert "model.tar.gz is missing" in refused("evaluate")


def test_a_missing_test_split_is_refused(opt_ml: Paths, refused: Callable[..., str]) -> None:
    assert "index.json is missing" in refused("evaluate")
