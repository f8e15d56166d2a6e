"""The provenance record (passport.json), and the hash of the program that made the model."""

import json
import shutil
from pathlib import Path

import pytest

import training
from tests.contracts import validate
from training.passport import code_sha256, file_sha256, write_passport

PROGRAM = Path(training.__file__).parent
RECORD = {
    "data": {"fingerprint": "ab12", "train_images": 8, "valid_images": 2},
    "hyperparameters": {"epochs": 3},
    "metrics": {"valid_accuracy": 0.5},
}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The program as an image or another machine holds it."""
    return Path(shutil.copytree(PROGRAM, tmp_path / "elsewhere" / "training"))


def test_a_copy_of_the_program_has_the_same_hash(program: Path) -> None:
    assert code_sha256(program) == code_sha256()


def test_what_a_container_image_leaves_out_does_not_count(program: Path) -> None:
    for name in ("Dockerfile", ".dockerignore", "requirements-torch.txt"):
        (program / name).unlink()
    shutil.rmtree(program / "__pycache__", ignore_errors=True)
    assert code_sha256(program) == code_sha256()


def test_what_running_leaves_behind_does_not_count(program: Path) -> None:
    (program / "train" / "__pycache__").mkdir(exist_ok=True)
    (program / "train" / "__pycache__" / "left.py").write_text("x")
    assert code_sha256(program) == code_sha256()


@pytest.mark.parametrize(
    "name", ["split.py", "evaluate/run.py", "requirements.txt", "evaluate/report.html.j2", "evaluate/style.css"]
)
def test_any_change_of_the_program_changes_the_hash(program: Path, name: str) -> None:
    with (program / name).open("a") as file:
        file.write(" ")
    assert code_sha256(program) != code_sha256()


def test_a_file_under_another_name_changes_the_hash(program: Path) -> None:
    (program / "split.py").rename(program / "splits.py")  # the order of the files stays the same
    assert code_sha256(program) != code_sha256()


def test_the_record_names_each_file_and_what_the_model_was_made_of(tmp_path: Path) -> None:
    names = ("model.json", "model.xml", "model.bin", "weights.pt")
    for name in names:
        (tmp_path / name).write_text(name)
    write_passport(tmp_path, RECORD, image="registry/image:1")
    record = json.loads((tmp_path / "passport.json").read_text())
    validate("passport", record)
    assert record == {
        "format": 1,
        **RECORD,
        "code": {"sha256": code_sha256()},
        "image": "registry/image:1",
        "files": {name: file_sha256(tmp_path / name) for name in names},
    }


def test_a_second_record_replaces_the_first(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    write_passport(tmp_path, RECORD, image="")
    first = (tmp_path / "passport.json").read_bytes()
    write_passport(tmp_path, RECORD, image="")
    assert (tmp_path / "passport.json").read_bytes() == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.json", "passport.json"]
