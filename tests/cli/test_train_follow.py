"""Following against a CloudWatch on loopback, and what SageMaker may answer in between."""

import io
import random
import re
import time
import uuid
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.stub import Stubber  # type: ignore[import-untyped]
from rich.console import Console

from kennel.console import Display
from kennel.errors import KennelError
from kennel.pipeline_steps import training_usage, trial_of_summary
from kennel.prices import Prices
from kennel.train.follow import Follower, Tail

GROUP = "/aws/sagemaker/TrainingJobs"
ARN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/kennel-dev/execution/abcdefghijkl"


class Stream:
    """One host's log stream of a job of its own name."""

    def __init__(self, logs: Any, job: str, host: str) -> None:
        self._logs, self._name = logs, f"{job}/{host}-1700000000"
        if not logs.describe_log_groups(logGroupNamePrefix=GROUP)["logGroups"]:
            logs.create_log_group(logGroupName=GROUP)
        logs.create_log_stream(logGroupName=GROUP, logStreamName=self._name)

    def write(self, *lines: str) -> None:
        now = int(time.time() * 1000)
        events = [{"timestamp": now, "message": line} for line in lines]
        self._logs.put_log_events(logGroupName=GROUP, logStreamName=self._name, logEvents=events)


@pytest.fixture
def logs(aws: str) -> Any:
    return boto3.client("logs")


@pytest.fixture
def job(aws: str) -> str:
    return f"pipelines-x-Train-{uuid.uuid4().hex[:10]}"


def test_lines_come_once_each_in_order_however_writing_and_reading_alternate(logs: Any, job: str) -> None:
    chance, stream, tail = random.Random(1), Stream(logs, job, "algo-1"), Tail(logs, "TrainingJob", job)
    written: list[str] = []
    seen: list[str] = []
    for _ in range(12):
        for _ in range(chance.randrange(3)):
            lines = [f"line {len(written) + number}" for number in range(chance.randrange(1, 60))]
            written += lines
            stream.write(*lines)
        seen += [line for _, line in tail.read()]
    assert seen == written
    assert list(tail.read()) == []


def test_more_lines_than_a_page_holds_all_arrive(logs: Any, job: str) -> None:
    stream, lines = Stream(logs, job, "algo-1"), [f"line {number}" for number in range(12_000)]
    stream.write(*lines[:9000])
    stream.write(*lines[9000:])
    assert [line for _, line in Tail(logs, "TrainingJob", job).read()] == lines


def test_hosts_are_told_apart_and_a_stream_that_comes_later_is_read(logs: Any, job: str) -> None:
    tail = Tail(logs, "TrainingJob", job)
    Stream(logs, job, "algo-1").write("one")
    assert list(tail.read()) == [("", "one")]
    Stream(logs, job, "algo-2").write("two")
    assert list(tail.read()) == [("algo-2", "two")]


def test_another_job_whose_name_begins_alike_is_not_read(logs: Any, job: str) -> None:
    Stream(logs, f"{job}-2", "algo-1").write("not ours")
    assert list(Tail(logs, "TrainingJob", job).read()) == []


def test_a_group_that_does_not_exist_yet_is_no_error(logs: Any) -> None:
    assert list(Tail(logs, "ProcessingJob", "none").read()) == []


def test_an_empty_page_is_not_the_end(logs: Any) -> None:
    with Stubber(logs) as stub:
        stub.add_response("describe_log_streams", {"logStreams": [{"logStreamName": "j/algo-1-1"}]})
        pages: list[tuple[list[str], str]] = [([], "b"), (["late"], "c"), ([], "c")]
        for lines, token in pages:
            events = [{"message": line} for line in lines]
            stub.add_response("get_log_events", {"events": events, "nextForwardToken": token})
        assert list(Tail(logs, "TrainingJob", "j").read()) == [("", "late")]


class Answers:
    """SageMaker as told: each look is DescribePipelineExecution and ListPipelineExecutionSteps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sagemaker, self.logs = boto3.client("sagemaker"), boto3.client("logs")
        self.stub = Stubber(self.sagemaker)
        self.slept: list[float] = []
        monkeypatch.setattr("kennel.train.follow.time.sleep", self.slept.append)

    def client(self, service: str) -> Any:
        return {"sagemaker": self.sagemaker, "logs": self.logs}[service]

    def look(self, status: str, *steps: dict[str, Any], **more: Any) -> None:
        self.stub.add_response("describe_pipeline_execution", {"PipelineExecutionStatus": status, **more})
        self.stub.add_response("list_pipeline_execution_steps", {"PipelineExecutionSteps": list(steps)})

    def follow(self) -> tuple[Any, str]:
        out = io.StringIO()
        with self.stub, Display(Console(file=out, width=80)) as display:
            self.follower = Follower(self.client, ARN, display, prices=Prices("us-east-1", "", {}), epochs=4)
            ending = self.follower.run()
            self.stub.assert_no_pending_responses()
        return ending, out.getvalue()


@pytest.fixture
def answers(aws: str, monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


GATE = {"StepName": "Gate", "StepStatus": "Succeeded"}


def test_throttling_is_waited_out_with_patience_that_grows(answers: Answers) -> None:
    for _ in range(3):
        answers.stub.add_client_error("describe_pipeline_execution", "ThrottlingException", "Rate exceeded")
    answers.look("Executing")
    answers.look("Succeeded", GATE)
    ending, _ = answers.follow()
    assert ending.status == "Succeeded"
    assert answers.slept == [4, 8, 16, 2]


def test_credentials_that_expire_meanwhile_end_it_with_a_sentence(answers: Answers) -> None:
    answers.look("Executing")
    answers.stub.add_client_error("describe_pipeline_execution", "ExpiredTokenException", "expired")
    with pytest.raises(KennelError, match="credentials have expired"):
        answers.follow()


@pytest.mark.parametrize("code", ["InvalidClientTokenId", "SignatureDoesNotMatch", "UnauthorizedException"])
def test_a_key_that_is_no_longer_known_is_told_to_sign_in_again(answers: Answers, code: str) -> None:
    answers.stub.add_client_error("describe_pipeline_execution", code, "The security token is invalid.")
    with pytest.raises(KennelError, match=r"does not know these credentials .*sign in again"):
        answers.follow()


def test_a_step_that_used_an_earlier_result_says_so_and_costs_nothing(answers: Answers) -> None:
    hit = {"SourcePipelineExecutionArn": ARN}
    metadata = {"ProcessingJob": {"Arn": "arn:aws:sagemaker:us-east-1:123456789012:processing-job/old"}}
    step = {"StepName": "Prepare", "StepStatus": "Succeeded", "CacheHitResult": hit, "Metadata": metadata}
    answers.look("Succeeded", step)
    ending, told = answers.follow()
    assert "✓ Prepare 0.0 s: nothing new to do: the result of an earlier run is used" in told
    assert ending.cost == 0


def test_choices_are_not_shown_and_a_stop_is_no_failure(answers: Answers) -> None:
    answers.look("Stopped", {"StepName": "ChooseTuned", "StepStatus": "Succeeded"}, {**GATE, "StepStatus": "Stopped"})
    ending, told = answers.follow()
    assert "Choose" not in told
    assert "■ Gate" in told
    assert (ending.status, ending.failed) == ("Stopped", "")


def test_a_rejection_is_told_in_the_gates_own_words(answers: Answers) -> None:
    reject = {"StepName": "Reject", "StepStatus": "Failed", "FailureReason": "Not registered: 0.2 is below 0.9."}
    answers.look("Failed", {**reject, "Metadata": {"Fail": {"ErrorMessage": "Not registered: 0.2 is below 0.9."}}})
    assert answers.follow()[0].sentence == "Not registered: 0.2 is below 0.9."


def test_a_step_that_is_tried_again_is_shown_again(answers: Answers) -> None:
    answers.look("Executing", {"StepName": "Register", "StepStatus": "Failed", "FailureReason": "a fault"})
    answers.look("Executing", {"StepName": "Register", "StepStatus": "Executing"})
    answers.look("Succeeded", {"StepName": "Register", "StepStatus": "Succeeded"})
    ending, told = answers.follow()
    assert re.sub(r"\d\.\d", "0.0", told).splitlines() == [
        "Register ...",
        "✗ Register 0.0 s: a fault",
        "Register ...",
        "✓ Register 0.0 s",
    ]
    assert (ending.status, ending.failed) == ("Succeeded", "")


def test_epochs_and_the_trials_of_a_search_within_one_job_are_remembered(answers: Answers, job: str) -> None:
    arn = f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{job}"
    step = {"StepName": "Train", "StepStatus": "Succeeded", "Metadata": {"TrainingJob": {"Arn": arn}}}
    trial = "trial=3 of=50 trial_accuracy=0.97 trial_loss=0.1 learning_rate=0.003"
    Stream(answers.logs, job, "algo-1").write("model=resnet18", trial, "epoch=2 valid_accuracy=0.5")
    for _ in range(3):
        answers.look("Succeeded", step)
        about = {"TrainingJobName": job, "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "VolumeSizeInGB": 1}}
        answers.stub.add_response("describe_training_job", _described(about, arn))
    _, told = answers.follow()
    assert answers.follower.epochs == [{"step": "Train", "job": "", "epoch": 2, "valid_accuracy": 0.5}]
    assert answers.follower.trials == [
        {"trial": "3/50", "valid_accuracy": 0.97, "valid_loss": 0.1, "chosen": "learning_rate 0.003"}
    ]
    assert "  model=resnet18\n" in told
    assert told.endswith(": epoch 2  valid accuracy 0.5000\n")


def _described(about: dict[str, Any], arn: str) -> dict[str, Any]:
    """DescribeTrainingJob's answer with what botocore demands of one."""
    needed = {"TrainingJobArn": arn, "ModelArtifacts": {"S3ModelArtifacts": "s3://b/k"}, "CreationTime": 0}
    needed |= {"TrainingJobStatus": "Completed", "SecondaryStatus": "Completed", "StoppingCondition": {}}
    return {**needed, "AlgorithmSpecification": {"TrainingInputMode": "File"}, **about}


def test_a_trial_of_a_tuning_job_is_a_row_with_its_objective() -> None:
    final = {"MetricName": "valid_accuracy", "Value": 0.4}
    summary = {"TunedHyperParameters": {"rate": "0.1"}, "FinalHyperParameterTuningJobObjectiveMetric": final}
    assert trial_of_summary(1, 2, summary) == {"trial": "1/2", "valid_accuracy": 0.4, "chosen": "rate 0.1"}


def test_a_failure_without_a_step_keeps_the_runs_own_reason(answers: Answers) -> None:
    answers.look("Failed", FailureReason="Parameter X is wrong")
    assert answers.follow()[0].reason == "Parameter X is wrong"


def test_a_spot_job_is_billed_for_its_billable_seconds(aws: str) -> None:
    about = {"ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2}, "BillableTimeInSeconds": 90}
    usage = training_usage({**about, "TrainingTimeInSeconds": 300})
    assert usage.cost(Prices("us-east-1", "", {"ml.m5.xlarge": 0.4})) == pytest.approx(2 * 90 * 0.4 / 3600)
