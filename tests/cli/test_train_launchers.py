"""One program, whoever launches it: the same results here and as the pipeline's jobs, over interruptions too."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kennel.cli import app
from kennel.rehearsal.rehearse import synthesize
from kennel.upload.upload import upload_dataset
from tests.cli.launch_world import PIPELINE, LaunchWorld
from tests.cli.trees import photographs
from training.passport import code_sha256

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parents[2]
TINY = ("--model", "resnet18", "--image-size", "32", "--batch-size", "16", "--precision", "float32")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photographs(tmp_path_factory.mktemp("photos") / "pets")


def kennel(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "80"})


def only_run(runs: Path) -> Path:
    (file,) = runs.glob("*/run.json")
    return file.parent


def measured(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on the launcher."""
    timed = "images_per_second"
    history = [{name: row[name] for name in row if name != timed} for row in evaluation["model"]["history"]]
    kept = {name: evaluation[name] for name in ("metrics", "per_class", "abstain", "classes")}
    return {
        **kept,
        "history": history,
        "data": evaluation["model"]["data"],
        "code": evaluation["passport"]["code_sha256"],
    }


@pytest.mark.long
def test_this_machine_and_the_pipelines_jobs_measure_the_same_with_the_files_of_the_image(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (image,) = synthesize(tmp_path / "cdk.out").glob("**/asset.*/hyperparameters.py")
    here = kennel("train", "--local", photos, "--runs", tmp_path / "runs", *TINY, "--epochs", 2)
    assert here.exit_code == 0, here.output
    with LaunchWorld(tmp_path).running() as world:
        world.deployed_pipeline()
        for name, value in world.cloud.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
        s3 = world.cloud.client("s3")
        upload_dataset(photos, bucket=world.bucket, s3=s3)
        there = kennel("train", "pets", "--stage", "T", "--yes", *TINY, "--epochs", 2)
        assert there.exit_code == 0, there.output
        execution = world.executions[0]["PipelineExecutionArn"].rpartition("/")[2]
        key = f"runs/{PIPELINE}/evaluate/{execution}/evaluation.json"
        cloud = json.loads(s3.get_object(Bucket=world.bucket, Key=key)["Body"].read())
        compared = kennel("compare", "--stage", "T", "--runs", tmp_path / "runs", "--json")
    local = json.loads((only_run(tmp_path / "runs") / "evaluation" / "evaluation.json").read_text())
    assert measured(local) == measured(cloud)
    assert local["passport"]["code_sha256"] == code_sha256(image.parent)
    assert {run["launcher"] for run in json.loads(compared.stdout)["runs"]} == {"local", "SageMaker"}
    assert "epoch 2" in there.stdout
    assert "✓ Register" in there.stdout


@pytest.mark.long
def test_a_run_leaves_model_evaluation_and_report_and_a_second_one_uses_its_features(
    photos: Path, tmp_path: Path
) -> None:
    import torch
    import torchvision  # type: ignore[import-untyped]

    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    arguments = ("train", "--local", photos, "--weights", tmp_path / "resnet18.pth", "--runs", tmp_path / "runs", *TINY)
    first = kennel(*arguments, "--epochs", 2)
    assert first.exit_code == 0, first.output
    run = only_run(tmp_path / "runs")
    assert "Test accuracy " in first.stdout
    for file in ("output/model.tar.gz", "evaluation/evaluation.json", "evaluation/report.html", "report/prepare.json"):
        assert (run / file).stat().st_size > 0, file
    assert not (run / "ml").exists()
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    with tarfile.open(run / "output" / "model.tar.gz") as archive:
        assert {"model.json", "passport.json", "model.xml", "model.bin", "weights.pt"} <= set(archive.getnames())
    assert "images=48 computed=48 reused=0" in first.stdout
    assert "images=48 computed=0 reused=48" in kennel(*arguments, "--epochs", 3).stdout


def _told(runs: Path, *arguments: object, stop_after: str = "") -> tuple[int, str]:
    """Run the command as a process; SIGINT once it has printed `stop_after`. Return its exit code and what it said."""
    code = "from kennel.cli import app; app(prog_name='kennel')"
    command = [sys.executable, "-c", code, "train", "--runs", str(runs), *map(str, arguments)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout
    told = ""
    try:
        for line in process.stdout:
            told += line
            if stop_after and stop_after in line:
                process.send_signal(signal.SIGINT)
                stop_after = ""
        return process.wait(60), told
    finally:
        process.kill()
        process.communicate()


@pytest.mark.long
def test_ctrl_c_keeps_the_checkpoint_and_resume_goes_on_from_there(photos: Path, tmp_path: Path) -> None:
    settings = (*TINY, "--epochs", 8, "--instances", 2)
    code, before = _told(tmp_path, "--local", photos, *settings, stop_after="epoch 2 ")
    run = only_run(tmp_path)
    assert code == 130, before
    assert f"kennel train --resume {run.name}" in before
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    code, after = _told(tmp_path, "--resume", run.name)
    assert code == 0, after
    epochs = [int(epoch) for epoch in re.findall(r"^ .*epoch (\d+) ", before + after, re.MULTILINE)]
    assert epochs == [*range(1, 9)]
    assert "Test accuracy " in after
