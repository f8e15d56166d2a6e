"""One training program whoever launches it: the same files, the same image, the same numbers."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from kennel.cli import app
from kennel.upload.upload import upload_dataset
from tests.stacks.synthesized import Json, Synthesized, text
from tests.stacks.workbench.trainer_machine import IMAGE, Machine
from training.passport import code_sha256

SETTINGS = {"model": "resnet18", "image_size": "32", "epochs": "2", "batch_size": "16", "precision": "float32"}


def test_the_image_is_built_from_the_very_files_that_run_here(synth: Synthesized) -> None:
    (program,) = (file.parent for file in synth.folder.glob("**/asset.*/hyperparameters.py"))
    assert code_sha256(program) == code_sha256()


def test_the_ec2_launcher_runs_the_image_of_the_pipelines_jobs(synth: Synthesized) -> None:
    template = synth.only("Prod", "Workbench", "AWS::EC2::LaunchTemplate")["LaunchTemplateData"]
    lines = text(template["UserData"]["Fn::Base64"]).splitlines()
    (image,) = (line.removeprefix("IMAGE=") for line in lines if line.startswith("IMAGE="))
    jobs = [step for step in synth.definition("Prod")["Steps"] if step["Name"] == "Prepare"]
    assert image == jobs[0]["Arguments"]["AppSpecification"]["ImageUri"]


def photos(folder: Path) -> Path:
    """Two classes of noise, bright and dark, in three splits."""
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("valid", 12), ("test", 12)):
        for name, low in (("bright", 90), ("dark", 0)):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(low, low + 160, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    return folder


def passport(archive: bytes) -> Json:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        found: Json = json.load(tar.extractfile("passport.json"))  # type: ignore[arg-type]
    return found


def by_ec2(machine: Machine, data: Path) -> tuple[Any, bytes]:
    """Evaluation and model.tar.gz of a run of the user data, in which Docker's stand-in runs the real program."""
    machine.tags = {"Hyperparameters": json.dumps(SETTINGS)}
    upload_dataset(data, bucket=machine.bucket, s3=machine.s3)
    assert machine.boot() == 0, machine.left().get("run.log")
    left = machine.left()
    key = f"runs/kennel-prod/ec2/{left['run']}/output/model.tar.gz"
    return json.loads(left["evaluation/evaluation.json"]), machine.s3.get_object(Bucket=machine.bucket, Key=key)[
        "Body"
    ].read()


def by_this_machine(runs: Path, data: Path) -> tuple[Any, bytes]:
    options = [word for name, value in SETTINGS.items() for word in ("--" + name.replace("_", "-"), value)]
    done = CliRunner().invoke(app, ["train", "--local", str(data), "--runs", str(runs), *options])
    assert done.exit_code == 0, done.output
    (run,) = (file.parent for file in runs.glob("*/run.json"))
    evaluation = json.loads((run / "evaluation/evaluation.json").read_text())
    return evaluation, (run / "output/model.tar.gz").read_bytes()


@pytest.mark.torch
@pytest.mark.long
def test_ec2_and_this_machine_make_the_same_model_of_the_same_data_and_seed(tmp_path: Path, moto_server: str) -> None:
    data = photos(tmp_path / "photos")
    evaluated, model = by_ec2(Machine(tmp_path / "machine", moto_server, real=True), data)
    other, twin = by_this_machine(tmp_path / "runs", data)
    assert evaluated["metrics"] == other["metrics"]
    mine, its = passport(model), passport(twin)
    assert mine["code"] == its["code"] == {"sha256": code_sha256()}
    assert mine["data"] == its["data"]
    assert (mine["image"], its["image"]) == (IMAGE, "")
    assert mine["files"]["weights.pt"] == its["files"]["weights.pt"]
    assert evaluated["model"]["trained_on"]["instance_type"] == "g4dn.xlarge"
