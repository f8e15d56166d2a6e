"""`kennel train --local`: real jobs on this machine. The fast tests end before torch is needed."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from kennel.cli import app
from kennel.console import Display
from kennel.local.run import FolderBucket, Interrupted, LocalRun, new_run, read_run
from kennel.rehearsal.containers.local import ProcessEngine
from kennel.upload.upload import upload_dataset
from tests.cli.trees import photographs


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("photos") / "pets")


def train(runs: Path, *arguments: object) -> Result:
    words = ["train", "--runs", runs, *arguments]
    return CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "80", "OMP_NUM_THREADS": "1"})


def only_run(runs: Path) -> Path:
    (file,) = runs.glob("*/run.json")
    return file.parent


def record(runs: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((only_run(runs) / "run.json").read_text())
    return read


def test_a_run_begins_with_the_very_files_that_an_upload_sends(
    s3: Any, bucket: str, photos: Path, tmp_path: Path
) -> None:
    sent = upload_dataset(photos, bucket=bucket, s3=s3)
    kept = upload_dataset(photos, bucket=bucket, s3=FolderBucket(tmp_path))
    assert kept == sent
    names = [
        one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"] if not one["Key"].endswith(".manifest")
    ]
    assert len(names) == 2
    for name in names:
        assert (tmp_path / name).read_bytes() == s3.get_object(Bucket=bucket, Key=name)["Body"].read()


def failing(photos: Path, runs: Path) -> str:
    """Record a run with a hyperparameter that only the training program refuses, as of another version of it."""
    unknown = {"epoch": "3"}
    run = new_run(runs, data=photos, weights=None, hyperparameters=unknown, duplicates="", instances=1)
    return run.record.run


def test_a_bad_hyperparameter_is_wrong_usage_and_nothing_is_made(photos: Path, tmp_path: Path) -> None:
    done = train(tmp_path / "runs", "--local", photos, "--epochs", "few")
    assert done.exit_code == 2
    assert "Hyperparameter epochs must be a whole number, not 'few'." in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_job_that_fails_ends_the_run_in_the_programs_words_and_what_was_done_is_not_repeated(
    photos: Path, tmp_path: Path
) -> None:
    name = failing(photos, tmp_path)
    done = train(tmp_path, "--resume", name)
    assert done.exit_code == 1
    assert "kennel: Train failed: Unknown hyperparameter 'epoch'" in done.stderr
    assert f"The log: {only_run(tmp_path) / 'run.log'}" in done.stderr
    assert "✓ Prepare" in done.stdout
    assert "Traceback" not in done.output
    told = record(tmp_path)
    assert (told["status"], list(told["seconds"])) == ("failed", ["Read", "Prepare"])
    assert (told["images"], len(told["fingerprint"])) == (60, 16)
    again = train(tmp_path, "--resume", name)
    assert re.search(r"✓ Prepare \d+\.\d s: done before", again.stdout)
    assert "classes; images" not in again.stdout  # what Prepare prints
    assert record(tmp_path)["seconds"] == told["seconds"]


def test_what_prepare_refuses_ends_the_run_in_its_words(tmp_path: Path) -> None:
    done = train(tmp_path / "runs", "--local", photographs(tmp_path / "few", 2))
    assert done.exit_code == 1
    assert "kennel: Prepare failed:" in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--local", "nowhere"], "nowhere does not exist."),
        (["--local", "PHOTOS", "--weights", "gone.pth"], "gone.pth does not exist"),
        (["--resume", "yesterday"], "There is no run 'yesterday'"),
        (["--resume", "../x"], "There is no run '../x'"),
        (["--local", "PHOTOS", "--instance-type", "ml.m5.xlarge"], "--instance-type is for runs on AWS"),
        (["--local", "PHOTOS", "--resume", "x"], "--local does not go with --resume"),
    ],
)
def test_what_cannot_be_run_here_is_one_sentence(photos: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = train(tmp_path / "runs", *(str(photos) if word == "PHOTOS" else word for word in arguments))
    assert says in done.stderr
    assert done.exit_code == 1
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_complete_or_goes_on_elsewhere_is_not_resumed(photos: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path, data=photos, weights=None, hyperparameters={}, duplicates="", instances=1)
    with run.locked():
        assert "is going on in another process" in train(tmp_path, "--resume", run.record.run).stderr
    run.record.status = "done"
    run.save()
    assert "is complete" in train(tmp_path, "--resume", run.record.run).stderr


def test_a_record_that_was_cut_off_is_said(photos: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path, data=photos, weights=None, hyperparameters={}, duplicates="", instances=1)
    assert read_run(tmp_path, run.record.run) == run
    (run.path / "run.json").write_text("{")
    assert "run.json cannot be read" in train(tmp_path, "--resume", run.record.run).stderr


def test_a_stop_while_the_images_are_read_leaves_a_run_that_can_go_on(photos: Path, tmp_path: Path) -> None:
    run = new_run(tmp_path, data=photos, weights=None, hyperparameters={}, duplicates="", instances=1)
    out = io.StringIO()
    with pytest.raises(Interrupted, match=f"kennel train --resume {run.record.run}"):
        LocalRun(run, ProcessEngine(), Display(Console(file=out)), stopped=lambda: True).go()
    assert "■ Read" in out.getvalue()
    kept = read_run(tmp_path, run.record.run).record
    assert (kept.status, kept.seconds, kept.reason) == ("interrupted", {}, "")
