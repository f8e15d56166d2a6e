"""Whole pipelines, with programs of a few lines in the containers and an S3 in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from kennel.rehearsal.interfaces import PipelineExecution
from kennel.rehearsal.jobs.execution import PipelineRunner
from tests.rehearsal.jobs.pipelines import PIPELINE, Pipelines, processing, run, training

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save


def _condition(name: str, left: Any, right: Any, then: list[Any], otherwise: list[Any]) -> dict[str, Any]:
    compared = [{"Type": "GreaterThanOrEqualTo", "LeftValue": left, "RightValue": right}]
    arguments = {"Conditions": compared, "IfSteps": then, "ElseSteps": otherwise}
    return {"Name": name, "Type": "Condition", "Arguments": arguments}


_MEASURED = {
    "Std:JsonGet": {
        "PropertyFile": {"Get": "Steps.Evaluate.PropertyFiles.Evaluation"},
        "Path": "metrics.accuracy.value",
    }
}


@pytest.mark.parametrize(("threshold", "status", "taken"), [(0.9, "Succeeded", "Register"), (0.99, "Failed", "Reject")])
def test_the_gate_registers_or_rejects_by_the_evaluation(
    pipelines: Pipelines, threshold: float, status: str, taken: str
) -> None:
    boto3.client("sagemaker", region_name="us-east-1").create_model_package_group(ModelPackageGroupName="g")
    script = """
out = ml / "processing/output/evaluation"
(out / "evaluation.json").write_text(json.dumps({"metrics": {"accuracy": {"value": 0.95}}}))"""
    files = [{"PropertyFileName": "Evaluation", "OutputName": "evaluation", "FilePath": "evaluation.json"}]
    evaluate = processing("Evaluate", script, outputs={"evaluation": "s3://data/e"}, PropertyFiles=files)
    container = {"Image": "i", "ModelDataUrl": "s3://data/m.tar.gz"}
    package = {
        "ModelPackageGroupName": "g",
        "ModelApprovalStatus": "Approved",
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": ["image/jpeg"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    }
    register = {"Name": "Register", "Type": "RegisterModel", "Arguments": package}
    message = {"Std:Join": {"On": "", "Values": ["only ", _MEASURED]}}
    reject = {"Name": "Reject", "Type": "Fail", "Arguments": {"ErrorMessage": message}}
    execution = pipelines.run(evaluate, _condition("Gate", _MEASURED, threshold, [register], [reject]))
    assert execution.status == status
    assert [step["StepName"] for step in execution.steps] == ["Evaluate", "Gate", taken]
    assert execution.steps[1]["Metadata"] == {"Condition": {"Outcome": str(taken == "Register")}}
    if taken == "Register":
        assert ":model-package/g/1" in execution.steps[2]["Metadata"]["RegisterModel"]["Arn"]
        assert pipelines.asked[-1] == ("sagemaker", PIPELINE)
    else:
        assert execution.failure_reason == "Reject: only 0.95"
    assert ("s3", PIPELINE) in pipelines.asked  # the property file


def test_what_depends_on_a_step_that_was_not_chosen_is_never_started(pipelines: Pipelines) -> None:
    after = processing("After", "", DependsOn=["Inner"])
    execution = pipelines.run(_condition("If", 1, 2, [processing("Inner", "")], []), after, processing("Other", ""))
    assert execution.status == "Succeeded", execution.failure_reason
    assert [step["StepName"] for step in execution.steps] == ["If", "Other"]


def test_after_a_failure_nothing_more_is_started(pipelines: Pipelines) -> None:
    execution = pipelines.run(processing("A", "sys.exit(1)"), processing("B", ""))
    assert [step["StepName"] for step in execution.steps] == ["A"]


@contextmanager
def _running(pipelines: Pipelines, script: str) -> Iterator[tuple[PipelineRunner, PipelineExecution, threading.Thread]]:
    """A training job in a thread of its own, which has printed "ready"."""
    runner, execution = pipelines.runner(), pipelines.execution(training("Train", script))
    thread = threading.Thread(target=run, args=(runner, execution))
    thread.start()
    try:
        pipelines.wait_for("ready")
        yield runner, execution, thread
    finally:
        runner.close()
        thread.join()


def test_an_execution_that_is_stopped_ends_its_job(pipelines: Pipelines) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *a: sys.exit(143)); say('ready'); time.sleep(600)"
    with _running(pipelines, script) as (_, execution, thread):
        execution.status = "Stopping"
        thread.join()
    assert execution.steps[0]["FailureReason"] == "Stopped: the pipeline execution was stopped."


def test_closing_kills_the_job_at_once(pipelines: Pipelines) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('ready'); time.sleep(600)"
    with _running(pipelines, script) as (runner, execution, thread):
        runner.close()
        assert not thread.is_alive()
    assert execution.failure_reason == "Train: The rehearsal ended while the pipeline ran."


def test_a_request_that_sagemaker_would_not_take_fails_its_step(pipelines: Pipelines) -> None:
    execution = pipelines.run(
        training("Train", "", ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": "two"})
    )
    assert execution.status == "Failed"
    assert "Invalid type for parameter ResourceConfig.InstanceCount" in execution.failure_reason


def test_a_step_of_an_unknown_kind_or_without_what_it_needs_says_so(pipelines: Pipelines) -> None:
    assert (
        "Steps of type Transform cannot be rehearsed"
        in pipelines.run({"Name": "T", "Type": "Transform"}).failure_reason
    )
    broken = {"Name": "If", "Type": "Condition", "Arguments": {"IfSteps": []}}
    assert pipelines.run(broken).failure_reason == "If: The step If lacks 'Conditions' in its Arguments."


def test_nothing_of_a_job_stays_on_the_disk(pipelines: Pipelines) -> None:
    pipelines.run(training("Train", "(ml / 'model/m').write_text('x')"), processing("P", ""))
    assert [path for path in pipelines.work.rglob("*") if path.is_file()] == []
