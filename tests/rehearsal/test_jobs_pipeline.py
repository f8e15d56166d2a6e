"""Whole pipelines, with programs of a few lines in the containers and an S3 in this process."""

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from moto import mock_aws

from kennel.rehearsal.containers import Container, Process, pick_engine
from kennel.rehearsal.jobs import PipelineRunner, StepEvent
from kennel.rehearsal.jobs.checkpoints import Checkpoints
from kennel.rehearsal.jobs.store import Store
from kennel.rehearsal.seams import PipelineExecution

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save

JOB, PIPELINE = "arn:aws:iam::123456789012:role/job", "arn:aws:iam::123456789012:role/pipeline"
ARN = "arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/ex2"
METRICS = [{"Name": "valid_accuracy", "Regex": "valid_accuracy=([0-9.]+|nan)"}]
_HEAD = """
import json, os, pathlib, signal, sys, time
ml = pathlib.Path(os.environ.get("OPT_ML", "/opt/ml"))
config = {f.stem: json.loads(f.read_text()) for f in (ml / "input" / "config").glob("*.json")}
def say(*words): print(*words, flush=True)
"""


class Programmed:
    """The machine's own engine; a container without an entry point of its own runs `script` in place of the image's."""

    def __init__(self, script: str) -> None:
        self._engine, self._script = pick_engine(), _HEAD + script
        self.name, self.isolates, self.notice = self._engine.name, self._engine.isolates, self._engine.notice
        self.network, self.close = self._engine.network, self._engine.close

    def start(self, container: Container) -> Process:
        if not container.entrypoint:
            assert [*container.arguments] == ["train"]
            container = replace(container, entrypoint=["python3", "-c", self._script], arguments=())
        return self._engine.start(container)


@dataclass
class World:
    """An S3, the roles that clients were asked for, the events, and a runner."""

    work: Path
    s3: Any
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    events: list[StepEvent] = field(default_factory=list)

    def client(self, service: str, role: str | None) -> Any:
        self.asked.append((service, role))
        return boto3.client(service, region_name="us-east-1")

    def run(self, *steps: dict[str, Any], spot: bool = False, program: str = "") -> PipelineExecution:
        execution = PipelineExecution(
            arn="arn:aws:sagemaker:us-east-1:123456789012:pipeline/p/execution/ex1",
            pipeline_name="p",
            role_arn=PIPELINE,
            definition={"Version": "2020-12-01", "Steps": list(steps)},
            parameters={},
        )
        runner = PipelineRunner(
            client=self.client,
            work=self.work,
            containers=Programmed(program),
            on_event=self.events.append,
            interrupt_spot=spot,
            seed=0,
        )
        runner.run(execution)
        return execution

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket="data", Key=key, Body=body)

    def get(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket="data", Key=key)["Body"].read()
        return body

    def keys(self, prefix: str = "") -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket="data", Prefix=prefix).get("Contents", [])]

    def lines(self, kind: str = "log") -> list[str]:
        return [event.detail for event in self.events if event.kind == kind]

    def artifact(self, key: str) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(self.get(key))) as tar:
            files = [(member.name, tar.extractfile(member)) for member in tar]
            return {name: file.read() for name, file in files if file}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket="data")
        yield World(tmp_path / "work", s3)


def processing(
    name: str, script: str, inputs: dict[str, Any] | None = None, outputs: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """`inputs` and `outputs`: name -> URI; a tuple adds the S3DataType."""
    sources = [
        {
            "S3Uri": uri if isinstance(uri, str | dict) else uri[0],
            "S3DataType": "S3Prefix" if isinstance(uri, str | dict) else uri[1],
        }
        for uri in (inputs or {}).values()
    ]
    arguments = {
        "AppSpecification": {"ImageUri": "training", "ContainerEntrypoint": ["python3", "-c", _HEAD + script]},
        "RoleArn": JOB,
        "ProcessingInputs": [
            {"InputName": key, "S3Input": {**source, "LocalPath": f"/opt/ml/processing/input/{key}"}}
            for key, source in zip(inputs or {}, sources, strict=True)
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": key,
                    "S3Output": {
                        "S3Uri": uri,
                        "LocalPath": f"/opt/ml/processing/output/{key}",
                        "S3UploadMode": "EndOfJob",
                    },
                }
                for key, uri in (outputs or {}).items()
            ]
        },
        "ProcessingResources": {
            "ClusterConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
        },
    }
    return {"Name": name, "Type": "Processing", "Arguments": arguments, **more}


def training(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {
        "Name": name,
        "Type": "Training",
        "Arguments": {"HyperParameters": {"epochs": "2"}, **_learning(script), **more},
    }


def _learning(script: str) -> dict[str, Any]:
    return {
        "AlgorithmSpecification": {
            "TrainingImage": "training",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "-c", _HEAD + script],
            "MetricDefinitions": METRICS,
        },
        "RoleArn": JOB,
        "OutputDataConfig": {"S3OutputPath": "s3://data/runs"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }


def test_a_processing_job_reads_its_inputs_and_its_outputs_are_uploaded(world: World) -> None:
    world.put("in/a.txt", b"one")
    world.put("in/deep/b.txt", b"two")
    world.put("input-of-another/c.txt", b"three")
    script = """
inp, out = ml / "processing/input/data", ml / "processing/output/made"
(out / "sub").mkdir()
(out / "sub" / "list.txt").write_text(" ".join(sorted(str(p.relative_to(inp)) for p in inp.rglob("*") if p.is_file())))
"""
    execution = world.run(processing("Prepare", script, {"data": "s3://data/in"}, {"made": "s3://data/out"}))
    assert execution.status == "Succeeded", execution.failure_reason
    assert world.get("out/sub/list.txt") == b"a.txt deep/b.txt"
    assert world.asked == [("sagemaker", PIPELINE), ("s3", JOB), ("logs", JOB)]


def test_a_manifest_brings_just_the_files_that_it_lists(world: World) -> None:
    for name in ("a", "b", "c"):
        world.put(f"set/{name}.tar", name.encode())
    world.put("set.manifest", json.dumps([{"prefix": "s3://data/set/"}, "a.tar", "c.tar"]).encode())
    script = "say(*sorted(p.name for p in (ml / 'processing/input/data').iterdir()))"
    execution = world.run(processing("P", script, {"data": ("s3://data/set.manifest", "ManifestFile")}))
    assert execution.status == "Succeeded", execution.failure_reason
    assert world.lines() == ["a.tar c.tar"]


def test_a_manifest_cannot_write_outside_its_folder(world: World) -> None:
    world.put("x", b"evil")
    world.put("set.manifest", json.dumps([{"prefix": "s3://data/set/"}, "../../x"]).encode())
    execution = world.run(processing("P", "", {"data": ("s3://data/set.manifest", "ManifestFile")}))
    assert execution.status == "Failed"
    assert "'../../x' would leave its folder" in execution.failure_reason


def test_an_input_without_objects_fails_the_step_with_its_uri(world: World) -> None:
    execution = world.run(processing("P", "", {"data": "s3://data/nothing/here"}))
    assert execution.status == "Failed"
    assert execution.failure_reason.startswith("P: ClientError: no S3 objects found under s3://data/nothing/here")
    assert [event.kind for event in world.events] == ["started", "failed"]


def test_a_failing_program_gives_its_own_reason(world: World) -> None:
    script = """
(ml / "output").mkdir(exist_ok=True); (ml / "output" / "failure").write_text("The class cat is empty.")
sys.exit(1)"""
    execution = world.run(training("Train", script))
    assert execution.failure_reason == "Train: AlgorithmError: The class cat is empty. (exit code 1)"
    (step,) = execution.steps
    assert step["StepStatus"] == "Failed"
    assert step["FailureReason"] == "AlgorithmError: The class cat is empty. (exit code 1)"
    assert step["EndTime"] >= step["StartTime"]
    assert world.keys("runs") == []


def test_a_program_that_gives_no_reason_is_quoted_from_its_log(world: World) -> None:
    execution = world.run(training("Train", "raise ValueError('what a pity')"))
    assert execution.failure_reason.endswith("ValueError: what a pity (exit code 1)")


def test_a_training_job_sees_sagemakers_files_and_its_model_is_packed_flat(world: World) -> None:
    world.put("data/train/x.bin", b"pixels")
    script = """
say(json.dumps(config["hyperparameters"]), config["resourceconfig"]["hosts"], *config["inputdataconfig"])
data = (ml / "input/data/train/x.bin").read_bytes()
(ml / "model" / "model.json").write_bytes(data); (ml / "output/data/extra.txt").write_text("e")
say("epoch=1 valid_accuracy=0.5"); say("epoch=2 valid_accuracy=0.75")
"""
    channel = {
        "ChannelName": "train",
        "DataSource": {"S3DataSource": {"S3Uri": "s3://data/data/train", "S3DataType": "S3Prefix"}},
    }
    execution = world.run(training("Train", script, InputDataConfig=[channel]))
    assert execution.status == "Succeeded", execution.failure_reason
    model, output = sorted(world.keys("runs"))
    assert model.startswith("runs/pipelines-ex1-Train-") and model.endswith("/output/model.tar.gz")
    assert world.artifact(model) == {"model.json": b"pixels"}
    assert world.artifact(output) == {"extra.txt": b"e"}
    assert world.lines()[0] == '{"epochs": "2"} [\'algo-1\'] train'
    assert [event.metrics for event in world.events if event.kind == "metric"] == [
        {"valid_accuracy": 0.5},
        {"valid_accuracy": 0.75},
    ]
    assert world.events[-1] == StepEvent("Train", "finished", "valid_accuracy 0.75")
    (step,) = execution.steps
    arn = step["Metadata"]["TrainingJob"]["Arn"]
    assert arn == f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{model.split('/')[1]}"


def test_each_host_of_a_job_knows_who_it_is_and_their_models_are_one(world: World) -> None:
    script = """
me = config["resourceconfig"]["current_host"]
say(me, config["resourceconfig"]["hosts"]); (ml / "model" / me).write_text(me)
"""
    execution = world.run(
        training(
            "Train", script, ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
        )
    )
    assert execution.status == "Succeeded", execution.failure_reason
    assert sorted(world.lines()) == ["algo-1 ['algo-1', 'algo-2']", "algo-2 ['algo-1', 'algo-2']"]
    assert {event.job for event in world.events if event.kind == "log"} == {"algo-1", "algo-2"}
    assert world.artifact(world.keys("runs")[0]) == {"algo-1": b"algo-1", "algo-2": b"algo-2"}


def test_when_one_host_fails_the_other_is_ended(world: World) -> None:
    script = """
signal.signal(signal.SIGTERM, lambda *a: sys.exit(143))
if config["resourceconfig"]["current_host"] == "algo-2": time.sleep(0.5); sys.exit("lost")
time.sleep(60)"""
    execution = world.run(
        training(
            "Train", script, ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
        )
    )
    assert execution.failure_reason.endswith("lost (exit code 1)")


_SPOT = """
mark = ml / "checkpoints" / "epoch"
first = int(mark.read_text()) + 1 if mark.exists() else 1
def stop(*a): (ml / "checkpoints" / "old").unlink(); say("stopped"); sys.exit(143)
signal.signal(signal.SIGTERM, stop)
for epoch in range(first, 3):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    mark.write_text(str(epoch)); (ml / "checkpoints" / "old").write_text("x")
    say(f"epoch={epoch} valid_accuracy=0.{epoch}")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    if epoch == 1: time.sleep(60)
(ml / "model" / "m").write_text(str(first))
"""


def _spot(name: str = "Train") -> dict[str, Any]:
    more = {"CheckpointConfig": {"S3Uri": "s3://data/checkpoints"}, "EnableManagedSpotTraining": True}
    return training(name, _SPOT, **more)


def test_a_spot_job_is_interrupted_and_goes_on_from_its_checkpoint(world: World) -> None:
    execution = world.run(_spot(), spot=True)
    assert execution.status == "Succeeded", execution.failure_reason
    assert world.lines("metric") == ["epoch=1 valid_accuracy=0.1", "epoch=2 valid_accuracy=0.2"]
    told = world.lines()
    assert told[0] == "stopped"
    assert told[1].startswith("The spot instance was taken away")
    assert world.artifact(world.keys("runs")[0]) == {"m": b"2"}


def test_a_checkpoint_that_the_job_removed_is_removed_from_s3(world: World) -> None:
    world.put("checkpoints/epoch", b"1")
    world.put("checkpoints/gone", b"1")
    script = (
        "(ml / 'checkpoints/gone').unlink(); (ml / 'checkpoints/new').write_text('2'); (ml / 'model/m').write_text('')"
    )
    world.run(training("Train", script, CheckpointConfig={"S3Uri": "s3://data/checkpoints"}))
    assert world.keys("checkpoints") == ["checkpoints/epoch", "checkpoints/new"]


def test_a_spot_job_that_keeps_something_before_its_first_metric_is_interrupted_too(world: World) -> None:
    script = """
kept = ml / "checkpoints" / "features" / "0"
if not kept.exists():
    kept.parent.mkdir()
    kept.with_suffix(".partial").write_text("x"); kept.with_suffix(".partial").rename(kept)
    signal.pause()
(ml / "model" / "m").write_text("resumed")"""
    more = {"CheckpointConfig": {"S3Uri": "s3://data/checkpoints"}, "EnableManagedSpotTraining": True}
    execution = world.run(training("Train", script, **more), spot=True)
    assert execution.status == "Succeeded", execution.failure_reason
    assert world.lines()[0].startswith("The spot instance was taken away")
    assert world.artifact(world.keys("runs")[0]) == {"m": b"resumed"}


def test_what_one_job_keeps_the_next_one_finds_on_spot_and_off(world: World) -> None:
    script = "kept = ml / 'checkpoints/features'; (ml / 'model/m').write_text(str(kept.exists())); kept.write_text('x')"
    more = {"CheckpointConfig": {"S3Uri": "s3://data/checkpoints"}}
    world.run(training("First", script, **more), training("Second", script, EnableManagedSpotTraining=True, **more))
    assert [world.artifact(key) for key in world.keys("runs")] == [{"m": b"False"}, {"m": b"True"}]


def test_what_another_job_has_kept_meanwhile_stays(world: World) -> None:
    world.put("checkpoints/gone", b"1")
    checkpoints = Checkpoints(Store(world.s3), {"S3Uri": "s3://data/checkpoints/"}, "")
    checkpoints.bring(world.work)
    world.put("checkpoints/another", b"1")
    (world.work / "checkpoints" / "gone").unlink()
    checkpoints.keep([world.work])
    assert world.keys("checkpoints") == ["checkpoints/another"]


def test_a_job_that_takes_too_long_is_stopped(world: World) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *a: sys.exit(143)); time.sleep(60)"
    execution = world.run(training("Train", script, StoppingCondition={"MaxRuntimeInSeconds": 1}))
    assert execution.failure_reason.startswith("Train: MaxRuntimeExceeded: the job was stopped after its 1 s")


def _tuning(ranges: dict[str, Any], direction: str = "Maximize", trials: int = 3) -> dict[str, Any]:
    learning = _learning("")
    del learning["AlgorithmSpecification"]["ContainerEntrypoint"]  # which trials do not know
    arguments = {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": direction, "MetricName": "valid_accuracy"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": trials, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": ranges,
            "RandomSeed": 3,
        },
        "TrainingJobDefinition": {"StaticHyperParameters": {"model": "m"}, **learning},
    }
    return {"Name": "Tune", "Type": "Tuning", "Arguments": arguments}


_RANGES = {
    "ContinuousParameterRanges": [
        {"Name": "rate", "MinValue": "0.0001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
    ],
    "IntegerParameterRanges": [{"Name": "depth", "MinValue": "2", "MaxValue": "4"}],
    "CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "b"]}],
}
_TRIAL = "rate = config['hyperparameters']['rate']; say('valid_accuracy=' + rate); (ml / 'model/m').write_text(rate)"


@pytest.mark.parametrize(("direction", "choose"), [("Maximize", max), ("Minimize", min)])
def test_tuning_hands_on_the_best_trial(world: World, direction: str, choose: Callable[..., float]) -> None:
    best = {
        "Std:Join": {"On": "/", "Values": ["s3://data/runs", {"Get": "Steps.Tune.BestTrainingJob.TrainingJobName"}]}
    }
    read = processing("Read", "import tarfile", {"model": best})
    execution = world.run(_tuning(_RANGES, direction), read, program=_TRIAL)
    assert execution.status == "Succeeded", execution.failure_reason
    tried = [event.metrics["valid_accuracy"] for event in world.events if event.kind == "metric"]
    assert len(set(tried)) == 3
    assert all(0.0001 <= rate <= 0.1 for rate in tried)
    finished = next(event for event in world.events if event.kind == "finished")
    assert finished.detail.startswith(f"best valid_accuracy {choose(tried):g} with rate")
    assert {event.job for event in world.events if event.kind == "metric"} == {"1/3", "2/3", "3/3"}
    ended = [event for event in world.events if event.kind == "trial"]
    assert [(event.job, event.metrics["valid_accuracy"]) for event in ended] == list(
        zip(("1/3", "2/3", "3/3"), tried, strict=True)
    )
    assert f"rate {tried[0]:.8g}" in ended[0].detail
    assert len(world.keys("runs")) == 3


def test_a_trial_that_fails_or_reports_no_number_is_never_the_best(world: World) -> None:
    script = "say('valid_accuracy=nan') if config['hyperparameters']['kind'] == 'a' else sys.exit(1)"
    execution = world.run(_tuning(_RANGES), program=script)
    assert execution.status == "Failed"
    assert execution.failure_reason.startswith("Tune: No trial reported the objective. AlgorithmError")


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
    world: World, threshold: float, status: str, taken: str
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
    execution = world.run(evaluate, _condition("Gate", _MEASURED, threshold, [register], [reject]))
    assert execution.status == status
    assert [step["StepName"] for step in execution.steps] == ["Evaluate", "Gate", taken]
    assert execution.steps[1]["Metadata"] == {"Condition": {"Outcome": str(taken == "Register")}}
    if taken == "Register":
        assert ":model-package/g/1" in execution.steps[2]["Metadata"]["RegisterModel"]["Arn"]
        assert world.asked[-1] == ("sagemaker", PIPELINE)
    else:
        assert execution.failure_reason == "Reject: only 0.95"
    assert ("s3", PIPELINE) in world.asked  # the property file


def test_what_depends_on_a_step_that_was_not_chosen_is_never_started(world: World) -> None:
    after = processing("After", "", DependsOn=["Inner"])
    execution = world.run(_condition("If", 1, 2, [processing("Inner", "")], []), after, processing("Other", ""))
    assert execution.status == "Succeeded", execution.failure_reason
    assert [step["StepName"] for step in execution.steps] == ["If", "Other"]


def test_after_a_failure_nothing_more_is_started(world: World) -> None:
    execution = world.run(processing("A", "sys.exit(1)"), processing("B", ""))
    assert [step["StepName"] for step in execution.steps] == ["A"]


def test_an_execution_that_is_stopped_ends_its_job(world: World) -> None:
    execution: PipelineExecution | None = None

    def stop(event: StepEvent) -> None:
        if event.detail == "ready" and execution:
            execution.status = "Stopping"

    world.events = _Listener(stop)
    execution = PipelineExecution(
        ARN,
        "p",
        PIPELINE,
        {"Steps": [training("Train", "say('ready'); time.sleep(60)")]},
        {},
    )
    script = execution.definition["Steps"][0]["Arguments"]["AlgorithmSpecification"]["ContainerEntrypoint"]
    script[-1] = script[-1].replace(
        "say('ready')", "signal.signal(signal.SIGTERM, lambda *a: sys.exit(143)); say('ready')"
    )
    PipelineRunner(
        client=world.client,
        work=world.work,
        containers=pick_engine(),
        on_event=world.events.append,
        interrupt_spot=False,
        seed=0,
    ).run(execution)
    assert execution.status == "Stopped"
    assert execution.steps[0]["FailureReason"] == "Stopped: the pipeline execution was stopped."


class _Listener(list[StepEvent]):
    def __init__(self, then: Callable[[StepEvent], None]) -> None:
        super().__init__()
        self._then = then

    def append(self, event: StepEvent) -> None:
        super().append(event)
        self._then(event)


def test_closing_kills_the_job_at_once(world: World) -> None:
    execution = PipelineExecution(ARN, "p", PIPELINE, {"Steps": [training("Train", _DEAF)]}, {})
    ready = threading.Event()

    def listen(event: StepEvent) -> None:
        if event.detail == "ready":
            ready.set()

    runner = PipelineRunner(
        client=world.client, work=world.work, containers=pick_engine(), on_event=listen, interrupt_spot=False, seed=0
    )
    thread = threading.Thread(target=runner.run, args=(execution,))
    thread.start()
    assert ready.wait(10)
    runner.close()
    assert not thread.is_alive()
    assert execution.failure_reason == "Train: The rehearsal ended while the pipeline ran."


_DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); say('ready'); time.sleep(60)"


def test_a_request_that_sagemaker_would_not_take_fails_its_step(world: World) -> None:
    execution = world.run(training("Train", "", ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": "two"}))
    assert execution.status == "Failed"
    assert "Invalid type for parameter ResourceConfig.InstanceCount" in execution.failure_reason


def test_a_step_of_an_unknown_kind_or_without_what_it_needs_says_so(world: World) -> None:
    assert "Steps of type Transform cannot be rehearsed" in world.run({"Name": "T", "Type": "Transform"}).failure_reason
    broken = {"Name": "If", "Type": "Condition", "Arguments": {"IfSteps": []}}
    assert world.run(broken).failure_reason == "If: The step If lacks 'Conditions' in its Arguments."


def test_nothing_of_a_job_stays_on_the_disk(world: World) -> None:
    world.run(training("Train", "(ml / 'model/m').write_text('x')"), processing("P", ""))
    assert [path for path in world.work.rglob("*") if path.is_file()] == []
