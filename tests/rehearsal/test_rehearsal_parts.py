"""What the rehearsal decides before anything is deployed, and what it promises about its folders."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kennel.errors import KennelError
from kennel.rehearsal.options import SUITED_HERE, Options, image_size, overrides, threshold
from kennel.rehearsal.rehearse import workspace
from kennel.rehearsal.report import Prediction
from kennel.rehearsal.session import require_answers, wait_for
from kennel.upload.folder import Tree

TEN_CLASSES = Tree(images=(), classes=tuple("abcdefghij"), splits=(), left_out=())


def _pictures(folder: Path, *sizes: tuple[int, int]) -> list[Path]:
    paths = [folder / f"{number}.png" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Image.new("RGB", size).save(path)
    return paths


@pytest.mark.parametrize(("size", "chosen"), [((8, 8), 32), ((32, 40), 32), ((100, 70), 96), ((4000, 3000), 224)])
def test_the_network_sees_images_at_about_their_own_size(tmp_path: Path, size: tuple[int, int], chosen: int) -> None:
    assert image_size(_pictures(tmp_path, size, size, size)) == chosen


def test_files_that_are_no_images_do_not_decide_the_size(tmp_path: Path) -> None:
    notes = tmp_path / "notes.png"
    notes.write_text("no image")
    assert image_size([notes, *_pictures(tmp_path, (64, 64)), notes]) == 64


def test_without_a_readable_image_the_reference_size_is_used() -> None:
    assert image_size([]) == 224


def test_the_digits_must_reach_ninety_percent_and_unknown_data_no_less_than_guessing() -> None:
    assert threshold(Options(hyperparameters={}), 10) == 0.9
    assert threshold(Options(hyperparameters={}, data=Path("/")), 10) == pytest.approx(0.1)
    assert threshold(Options(hyperparameters={}, threshold=0.5), 10) == 0.5


def test_every_option_of_training_reaches_the_pipeline_as_a_string() -> None:
    given = SUITED_HERE | {"epochs": "3", "seed": "7", "learning_rate": "1e-2", "image_size": "48", "mode": "whole"}
    options = Options(hyperparameters=given, instances=2, tune=4, spot=True, duplicates="remove")
    assert overrides(options, TEN_CLASSES) == {
        "Model": "resnet18",
        "Epochs": "3",
        "BatchSize": "64",
        "ImageSize": "48",
        "LearningRate": "1e-2",
        "Mode": "whole",
        "Seed": "7",
        "InstanceCount": "2",
        "TuneTrials": "4",
        "Spot": "true",
        "Duplicates": "remove",
        "AccuracyThreshold": "0.9",
    }


@pytest.mark.parametrize("given", [{"data": Path("/")}, {"threshold": 0.5}])
def test_the_worst_classes_of_unknown_data_or_of_a_lowered_gate_stop_no_rehearsal(given: dict[str, Any]) -> None:
    options = Options(hyperparameters={}, **given)
    assert overrides(options, TEN_CLASSES)["WorstClassesThreshold"] == "0"


def test_nothing_of_the_workspace_is_left_behind(tmp_path: Path) -> None:
    with workspace(tmp_path / "out") as work:
        (work / "big").mkdir()
        (work / "big" / "file").write_text("x")
    assert not work.exists()


def test_a_second_rehearsal_into_the_same_folder_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    holder = "import sys, pathlib\nfrom kennel.rehearsal.rehearse import workspace\n"
    holder += "with workspace(pathlib.Path(sys.argv[1])):\n print('held', flush=True)\n sys.stdin.read()"
    first = subprocess.Popen(
        [sys.executable, "-c", holder, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdin and first.stdout
    assert first.stdout.readline() == "held\n"
    with pytest.raises(KennelError, match="Another rehearsal is writing"), workspace(tmp_path):
        pass
    first.communicate()
    with workspace(tmp_path):
        pass


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(KennelError, match=r"disk of /somewhere/model.tar.gz is full"), workspace(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/model.tar.gz")


def test_waiting_ends_with_what_was_waited_for() -> None:
    answers = iter([None, "", "here"])
    assert wait_for("It", lambda: next(answers), []) == "here"
    with pytest.raises(KennelError, match="It did not happen within 0 s"):
        wait_for("It", lambda: None, [], seconds=0)


def test_waiting_ends_with_the_reason_when_an_event_was_refused() -> None:
    with pytest.raises(KennelError, match="It did not happen: the rule may not"):
        wait_for("It", lambda: None, ["the rule may not start the pipeline"])


def test_a_picture_of_the_test_split_without_an_answer_is_no_success() -> None:
    answered = Prediction("cat/1.png", "dog", 0.9, truth="cat")
    foreign = Prediction("photo.svg", "", 0.0, error="SVG is not supported.")
    require_answers([answered, foreign])
    refused = Prediction("cat/2.tif", "", 0.0, truth="cat", error="TIFF is not supported.")
    with pytest.raises(
        KennelError, match=r"1 of 2 pictures of the test split had no answer .* cat/2\.tif: TIFF is not"
    ):
        require_answers([answered, foreign, refused])
