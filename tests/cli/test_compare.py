"""Past runs from their records, and what is recommended by them."""

import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.stub import Stubber  # type: ignore[import-untyped]
from typer.testing import CliRunner

from kennel.cli import app
from kennel.compare.command import advise, factor
from kennel.compare.records import Found, Run, aws_runs, interval, local_runs
from kennel.console import duration
from kennel.prices import Prices
from tests.cli.launch_world import EVALUATION
from training.evaluate import scores

PRICES = Prices("us-east-1", "2026-11-21", {"ml.m5.xlarge": 0.36, "g4dn.xlarge": 0.72})
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
EXECUTION = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/kennel-dev/execution/abcdefghijkl"


def run(launcher: str = "SageMaker", **changed: Any) -> Run:
    values: dict[str, Any] = {
        "run": "r",
        "launcher": launcher,
        "instance_type": "" if launcher == "local" else "ml.m5.xlarge",
        "instances": 1,
        "started": "2026-11-21T12:00:00+00:00",
        "images": 1000,
        "epochs": 10,
        "mode": "head",
        "seconds": 600.0,
        "billable_seconds": 600.0,
        "cost": 0.0 if launcher == "local" else 0.04,
        "accuracy": 0.9,
        "low": 0.8,
        "high": 0.95,
        "worst": (),
        "fingerprint": "f",
    }
    return Run(**{**values, **changed})


def test_the_cheapest_and_the_fastest_are_named_with_their_reason() -> None:
    fast = run("EC2", instance_type="g4dn.xlarge", seconds=120.0, cost=0.10)
    said = advise([run(), run(), fast, run("local", seconds=3000.0)], 1000)
    assert "the cheapest on AWS is SageMaker on 1 x ml.m5.xlarge (about 10 min and $0.0400)" in said
    assert "the fastest is EC2 on 1 x g4dn.xlarge (about 2 min and $0.10)" in said
    assert "This rests on 4 runs, 4 of this size." in said
    assert "hint" not in said


def test_figures_are_scaled_to_another_size_and_that_is_said() -> None:
    said = advise([run(), run("SageMaker spot", cost=0.02, seconds=900.0)], 5000)
    assert "the cheapest on AWS is SageMaker spot on 1 x ml.m5.xlarge (about 75 min and $0.10)" in said
    assert "the fastest is SageMaker on 1 x ml.m5.xlarge (about 50 min and $0.20)" in said
    assert "2 runs, none of this size" in said
    assert "take it as a hint" in said


def test_one_kind_of_run_is_nothing_to_choose_between() -> None:
    said = advise([run()])
    assert "the cheapest on AWS and the fastest of all is SageMaker" in said
    assert "nothing to choose between" in said


def test_without_records_nothing_is_recommended() -> None:
    assert advise([]) == "There is no record of a finished run yet, so there is nothing to recommend."
    assert advise([run(seconds=0.0)]) == advise([])


def test_only_local_runs_have_no_price_to_compare() -> None:
    assert "the fastest is this machine (about 10 min); no run on AWS has a known cost" in advise([run("local")])


def test_runs_of_another_mode_are_left_out_since_their_time_says_nothing() -> None:
    old = run("EC2", mode="whole", seconds=1.0, started="2026-11-20T12:00:00+00:00")
    assert "EC2" not in advise([run(), old])


def test_epochs_count_where_the_whole_network_learns() -> None:
    assert factor(run(mode="whole"), 2000, 20) == 4.0
    assert factor(run(mode="head"), 2000, 20) == 2.0


@pytest.mark.parametrize(("share", "count"), [(0.9, 100), (0.0, 7), (1.0, 836), (0.5, 2)])
def test_the_interval_is_the_gates_own(share: float, count: int) -> None:
    low, high = interval(share, count)
    assert 0 <= low <= share <= high <= 1
    assert low == pytest.approx(scores.interval(round(share * count), count)[0], abs=1e-6)


@pytest.mark.parametrize(("seconds", "said"), [(45.4, "45 s"), (720, "12 min"), (12_240, "3.4 h")])
def test_durations_are_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def local_run(folder: Path, evaluation: Any = EVALUATION) -> Path:
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(evaluation))
    record = {"instances": 1, "started": "2026-11-21T12:00:00+00:00", "seconds": {"Prepare": 2.5, "Train": 10.0}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_run_on_this_machine_is_read_from_its_folder(tmp_path: Path) -> None:
    local_run(tmp_path / "one")
    found = Found()
    local_runs(tmp_path, found)
    (read,) = found.runs
    assert (read.launcher, read.place, read.seconds, read.cost) == ("local", "this machine", 12.5, 0.0)
    assert (read.images, read.epochs, read.mode, read.accuracy) == (1000, 2, "head", 0.9)
    assert read.worst == (("cat", 0.8), ("dog", 1.0))


def test_a_record_that_is_broken_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    local_run(tmp_path / "good")
    local_run(tmp_path / "old", {"format": 1})
    (local_run(tmp_path / "cut") / "evaluation" / "evaluation.json").write_text("{")
    found = Found()
    local_runs(tmp_path, found)
    assert len(found.runs) == 1
    assert [Path(name).parts[-3] for name in found.unread] == ["cut", "old"]


def test_without_aws_local_runs_are_compared_and_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    local_run(tmp_path / "one")
    done = CliRunner().invoke(app, ["compare", "--runs", str(tmp_path)], env={"COLUMNS": "80"})
    assert done.exit_code == 0
    assert "Only runs on this machine are compared: No AWS region is set" in done.stdout
    assert "90.0%" in done.stdout


def put(s3: Any, bucket: str, key: str, evaluation: Any = EVALUATION) -> None:
    s3.put_object(Bucket=bucket, Key=f"runs/kennel-dev/{key}", Body=json.dumps(evaluation).encode())


@pytest.fixture
def clients(s3: Any) -> dict[str, Any]:
    return {"s3": s3, "sagemaker": boto3.client("sagemaker")}


def gathered(clients: dict[str, Any], bucket: str, answers: Callable[[Stubber], None]) -> Found:
    found = Found()
    with Stubber(clients["sagemaker"]) as stub:
        answers(stub)
        aws_runs(clients.__getitem__, bucket, "kennel-dev", PRICES, found)
        stub.assert_no_pending_responses()
    return found


def no_executions(stub: Stubber) -> None:
    stub.add_response("list_pipeline_executions", {"PipelineExecutionSummaries": []})


def test_a_run_on_ec2_is_timed_from_its_name_to_its_log(clients: dict[str, Any], bucket: str) -> None:
    evaluation = copy.deepcopy(EVALUATION)
    evaluation["model"]["trained_on"] = {"instance_type": "g4dn.xlarge", "instances": 1, "seconds": 60}  # type: ignore[index]
    put(clients["s3"], bucket, "ec2/20261121T120000Z-i-0abc/evaluation/evaluation.json", evaluation)
    put(clients["s3"], bucket, "ec2/20261121T120000Z-i-0abc/run.log")
    written = clients["s3"].head_object(Bucket=bucket, Key="runs/kennel-dev/ec2/20261121T120000Z-i-0abc/run.log")
    (read,) = gathered(clients, bucket, no_executions).runs
    assert (read.launcher, read.place) == ("EC2", "1 x g4dn.xlarge")
    assert read.seconds == max(60, (written["LastModified"] - NOW).total_seconds())
    assert read.cost == pytest.approx(0.72 * read.seconds / 3600)


def test_a_spot_run_costs_its_billable_seconds_on_every_instance(clients: dict[str, Any], bucket: str) -> None:
    def answers(stub: Stubber) -> None:
        summary = {"PipelineExecutionArn": EXECUTION}
        stub.add_response("list_pipeline_executions", {"PipelineExecutionSummaries": [summary]})
        job = "arn:aws:sagemaker:us-east-1:123456789012:training-job/pipelines-abcdefghijkl-trainspot-x"
        step = {"StepName": "TrainSpot", "StepStatus": "Succeeded", "Metadata": {"TrainingJob": {"Arn": job}}}
        stub.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": [step]})
        resources = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 1}
        about = {"ResourceConfig": resources, "BillableTimeInSeconds": 100, "TrainingTimeInSeconds": 300}
        needed: dict[str, Any] = {"TrainingJobName": "n", "TrainingJobArn": job, "TrainingJobStatus": "Completed"}
        needed |= {"ModelArtifacts": {"S3ModelArtifacts": "s3://b/m"}, "StoppingCondition": {}, "CreationTime": NOW}
        needed |= {"AlgorithmSpecification": {"TrainingInputMode": "File"}, "SecondaryStatus": "Completed"}
        asked = {"TrainingJobName": "pipelines-abcdefghijkl-TrainSpot-x"}
        stub.add_response("describe_training_job", {**needed, **about}, asked)

    put(clients["s3"], bucket, "evaluate/abcdefghijkl/evaluation.json")
    (read,) = gathered(clients, bucket, answers).runs
    assert (read.launcher, read.place) == ("SageMaker spot", "2 x ml.m5.xlarge")
    assert read.billable_seconds == 200
    assert read.cost == pytest.approx(0.02)


def test_a_run_that_sagemaker_has_forgotten_is_read_from_what_the_model_remembers(
    clients: dict[str, Any], bucket: str
) -> None:
    put(clients["s3"], bucket, "evaluate/gone/evaluation.json")
    put(clients["s3"], bucket, "evaluate/gone/figures/evaluation.json")
    (read,) = gathered(clients, bucket, no_executions).runs
    assert (read.seconds, read.place) == (10, "1 x ml.m5.xlarge")
    assert read.cost == pytest.approx(0.001)
