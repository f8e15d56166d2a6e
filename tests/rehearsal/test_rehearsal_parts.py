"""What the rehearsal decides before anything is deployed, and what it promises about its folders."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from kennel.console import Display
from kennel.errors import KennelError
from kennel.rehearsal.follow import Follower, Waiting, finished
from kennel.rehearsal.jobs.events import StepEvent
from kennel.rehearsal.options import Options
from kennel.rehearsal.parameters import image_size, overrides, threshold
from kennel.rehearsal.workspace import workspace


def _pictures(folder: Path, *sizes: tuple[int, int]) -> Path:
    for number, size in enumerate(sizes):
        path = folder / "cat" / f"{number}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", size).save(path)
    return folder


@pytest.mark.parametrize(("size", "chosen"), [((8, 8), 32), ((32, 40), 32), ((100, 70), 96), ((4000, 3000), 224)])
def test_the_network_sees_images_at_about_their_own_size(tmp_path: Path, size: tuple[int, int], chosen: int) -> None:
    assert image_size(_pictures(tmp_path, size, size, size)) == chosen


def test_files_that_are_no_images_do_not_decide_the_size(tmp_path: Path) -> None:
    (_pictures(tmp_path, (64, 64)) / "cat" / "notes.txt").write_text("no image")
    assert image_size(tmp_path) == 64


def test_a_folder_without_a_readable_image_gets_the_reference_size(tmp_path: Path) -> None:
    assert image_size(tmp_path) == 224


def test_the_digits_must_reach_ninety_percent_and_unknown_data_no_less_than_guessing() -> None:
    assert threshold(Options(), 10) == 0.9
    assert threshold(Options(data=Path("/")), 10) == pytest.approx(0.1)
    assert threshold(Options(threshold=0.5), 10) == 0.5


def test_every_option_of_training_reaches_the_pipeline_as_a_string(tmp_path: Path) -> None:
    options = Options(epochs=3, instances=2, tune=4, spot=True, seed=7, learning_rate=0.01, image_size=48)
    assert overrides(options, tmp_path, 10) == {
        "Model": "resnet18",
        "ImageSize": "48",
        "Epochs": "3",
        "BatchSize": "64",
        "LearningRate": "0.01",
        "Seed": "7",
        "InstanceCount": "2",
        "TuneTrials": "4",
        "Spot": "true",
        "AccuracyThreshold": "0.9",
    }


def test_nothing_of_the_workspace_is_left_behind(tmp_path: Path) -> None:
    with workspace(tmp_path / "out") as work:
        (work / "big").mkdir()
        (work / "big" / "file").write_text("x")
    assert not work.exists()


def test_a_second_rehearsal_into_the_same_folder_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    holder = "import sys, pathlib\nfrom kennel.rehearsal.workspace import workspace\n"
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
    assert Waiting([]).wait("It", lambda: next(answers), seconds=5) == "here"
    with pytest.raises(KennelError, match="It did not happen within 0 s"):
        Waiting([]).wait("It", lambda: None, seconds=0)


def test_waiting_ends_with_the_reason_when_an_event_was_refused() -> None:
    with pytest.raises(KennelError, match="It did not happen: the rule may not"):
        Waiting(["the rule may not start the pipeline"]).wait("It", lambda: None, seconds=60)


class _Described:
    """The one call of the SageMaker client that is used, in the service's shape."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = iter(statuses)

    def describe_pipeline_execution(self, PipelineExecutionArn: str) -> dict[str, str]:
        return {"PipelineExecutionStatus": next(self.statuses), "FailureReason": "Reject: accuracy is 0.2"}


def test_a_rejected_model_ends_the_rehearsal_with_the_reason() -> None:
    assert finished(_Described("Executing", "Succeeded"), "arn")["PipelineExecutionStatus"] == "Succeeded"
    with pytest.raises(KennelError, match=r"Failed: Reject: accuracy is 0\.2"):
        finished(_Described("Executing", "Failed"), "arn")


def test_pipeline_steps_become_steps_of_the_display_with_their_end() -> None:
    with Display() as display:
        follow = Follower(display, 2)
        follow(StepEvent("Prepare", "started"))
        follow(StepEvent("Prepare", "finished"))
        follow(StepEvent("Choose", "started"))
        follow(StepEvent("Choose", "finished"))
        follow(StepEvent("Train", "started"))
        follow(StepEvent("Train", "metric", metrics={"valid_accuracy": 0.4}))
        follow(StepEvent("Train", "metric", metrics={"valid_accuracy": 0.5}))
        follow(StepEvent("Train", "failed", "no luck"))
    assert [(step.name, step.status) for step in display.steps] == [("Prepare", "done"), ("Train", "failed")]
    assert [(one["epoch"], one["valid_accuracy"]) for one in follow.epochs] == [(1, 0.4), (2, 0.5)]


def test_each_trial_of_a_tuning_job_becomes_a_row_of_the_report() -> None:
    with Display() as display:
        follow = Follower(display, 2)
        follow(StepEvent("Tune", "started"))
        follow(StepEvent("Tune", "trial", "rate 0.1", {"valid_accuracy": 0.4}, "1/2"))
        follow(StepEvent("Tune", "finished"))
    assert follow.trials == [{"trial": "1/2", "valid_accuracy": 0.4, "chosen": "rate 0.1"}]
    assert [step.status for step in display.steps] == ["done"]
