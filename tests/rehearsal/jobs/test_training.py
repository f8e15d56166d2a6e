"""Training jobs: SageMaker's files, several hosts, spot and checkpoints."""

import os
from typing import Any

import pytest

from kennel.rehearsal.jobs import contract
from kennel.rehearsal.jobs.store import Store
from kennel.rehearsal.jobs.training import Checkpoints
from tests.rehearsal.jobs.pipelines import Pipelines, training

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save


def test_a_training_job_sees_sagemakers_files_and_its_model_is_packed_flat(pipelines: Pipelines) -> None:
    pipelines.put("data/train/x.bin", b"pixels")
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
    execution = pipelines.run(training("Train", script, InputDataConfig=[channel]))
    assert execution.status == "Succeeded", execution.failure_reason
    model, output = sorted(pipelines.keys("runs"))
    assert model.startswith("runs/pipelines-ex1-Train-") and model.endswith("/output/model.tar.gz")
    assert pipelines.artifact(model) == {"model.json": b"pixels"}
    assert pipelines.artifact(output) == {"extra.txt": b"e"}
    assert pipelines.lines()[0] == '{"epochs": "2"} [\'algo-1\'] train'
    (step,) = execution.steps
    arn = step["Metadata"]["TrainingJob"]["Arn"]
    described = execution.jobs[arn.lower()]
    assert described["FinalMetricDataList"] == [{"MetricName": "valid_accuracy", "Value": 0.75}]
    assert arn == f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{model.split('/')[1]}"


def test_each_host_of_a_job_knows_who_it_is_and_their_models_are_one(pipelines: Pipelines) -> None:
    script = """
me = config["resourceconfig"]["current_host"]
say(me, config["resourceconfig"]["hosts"], "on half of the cores:", os.environ["OMP_NUM_THREADS"])
(ml / "model" / me).write_text(me)
"""
    execution = pipelines.run(training("Train", script, ResourceConfig=_TWO_HOSTS))
    assert execution.status == "Succeeded", execution.failure_reason
    told = f"['algo-1', 'algo-2'] on half of the cores: {max(1, (os.cpu_count() or 1) // 2)}"
    assert sorted(pipelines.lines()) == [f"algo-1 {told}", f"algo-2 {told}"]
    assert {stream.split("/")[1] for stream, _ in pipelines.logs()} == {"algo-1", "algo-2"}
    assert pipelines.artifact(pipelines.keys("runs")[0]) == {"algo-1": b"algo-1", "algo-2": b"algo-2"}


_TWO_HOSTS = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
# The second host fails when the first one is ready; `end` is what the first one does at SIGTERM.
_SECOND_FAILS = """
import socket
address = ("127.0.0.1", int(os.environ.get("MASTER_PORT", 29500)))
def fail(reason):
    (ml / "output").mkdir(exist_ok=True); (ml / "output/failure").write_text(reason); sys.exit(3)
if config["resourceconfig"]["current_host"] == "algo-1":
    signal.signal(signal.SIGTERM, END)
    socket.create_server(address).accept()
    while True: signal.pause()
while True:
    try: socket.create_connection(address); break
    except OSError: time.sleep(0.05)
fail("The loss is not finite.")
"""


@pytest.mark.parametrize(
    ("end", "grace_s"),
    [
        pytest.param("lambda *a: fail('Lost the connection to algo-2.')", 60, id="at SIGTERM"),
        pytest.param("signal.SIG_IGN", 0.5, id="at SIGKILL"),
    ],
)
def test_a_failed_host_ends_the_job_on_all_hosts_with_its_own_reason(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch, end: str, grace_s: float
) -> None:
    monkeypatch.setattr(contract, "GRACE_S", grace_s)
    execution = pipelines.run(training("Train", _SECOND_FAILS.replace("END", end), ResourceConfig=_TWO_HOSTS))
    assert execution.failure_reason == "Train: AlgorithmError: The loss is not finite. (exit code 3)"


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
    if epoch == 1: time.sleep(600)
(ml / "model" / "m").write_text(str(first))
"""


def _spot(name: str = "Train") -> dict[str, Any]:
    more = {"CheckpointConfig": {"S3Uri": "s3://data/checkpoints"}, "EnableManagedSpotTraining": True}
    return training(name, _SPOT, **more)


def test_a_spot_job_is_interrupted_and_goes_on_from_its_checkpoint(pipelines: Pipelines) -> None:
    execution = pipelines.run(_spot(), spot=True)
    assert execution.status == "Succeeded", execution.failure_reason
    first, stopped, interruption, second = pipelines.lines()
    assert (first, stopped, second) == ("epoch=1 valid_accuracy=0.1", "stopped", "epoch=2 valid_accuracy=0.2")
    assert interruption.startswith("The spot instance was taken away")
    assert pipelines.artifact(pipelines.keys("runs")[0]) == {"m": b"2"}


def test_a_checkpoint_that_the_job_removed_is_removed_from_s3(pipelines: Pipelines) -> None:
    pipelines.put("checkpoints/epoch", b"1")
    pipelines.put("checkpoints/gone", b"1")
    script = (
        "(ml / 'checkpoints/gone').unlink(); (ml / 'checkpoints/new').write_text('2'); (ml / 'model/m').write_text('')"
    )
    pipelines.run(training("Train", script, CheckpointConfig={"S3Uri": "s3://data/checkpoints"}))
    assert pipelines.keys("checkpoints") == ["checkpoints/epoch", "checkpoints/new"]


def test_a_spot_job_that_keeps_something_before_its_first_metric_is_interrupted_too(pipelines: Pipelines) -> None:
    script = """
kept = ml / "checkpoints" / "features" / "0"
if not kept.exists():
    signal.signal(signal.SIGTERM, lambda *a: sys.exit(143))
    kept.parent.mkdir()
    kept.with_suffix(".partial").write_text("x"); kept.with_suffix(".partial").rename(kept)
    signal.pause()
(ml / "model" / "m").write_text("resumed")"""
    more = {"CheckpointConfig": {"S3Uri": "s3://data/checkpoints"}, "EnableManagedSpotTraining": True}
    execution = pipelines.run(training("Train", script, **more), spot=True)
    assert execution.status == "Succeeded", execution.failure_reason
    assert pipelines.lines()[0].startswith("The spot instance was taken away")
    assert pipelines.artifact(pipelines.keys("runs")[0]) == {"m": b"resumed"}


def test_what_one_job_keeps_the_next_one_finds_on_spot_and_off(pipelines: Pipelines) -> None:
    script = "kept = ml / 'checkpoints/features'; (ml / 'model/m').write_text(str(kept.exists())); kept.write_text('x')"
    more = {"CheckpointConfig": {"S3Uri": "s3://data/checkpoints"}}
    pipelines.run(training("First", script, **more), training("Second", script, EnableManagedSpotTraining=True, **more))
    assert [pipelines.artifact(key) for key in pipelines.keys("runs")] == [{"m": b"False"}, {"m": b"True"}]


def test_what_another_job_has_kept_meanwhile_stays(pipelines: Pipelines) -> None:
    pipelines.put("checkpoints/gone", b"1")
    checkpoints = Checkpoints(Store(pipelines.s3), {"S3Uri": "s3://data/checkpoints/"}, "")
    checkpoints.download([pipelines.work])
    pipelines.put("checkpoints/another", b"1")
    (pipelines.work / "checkpoints" / "gone").unlink()
    checkpoints.upload([pipelines.work])
    assert pipelines.keys("checkpoints") == ["checkpoints/another"]


def test_a_job_that_takes_too_long_is_stopped(pipelines: Pipelines) -> None:
    script = "signal.signal(signal.SIGTERM, lambda *a: sys.exit(143)); time.sleep(600)"
    execution = pipelines.run(training("Train", script, StoppingCondition={"MaxRuntimeInSeconds": 1}))
    assert execution.failure_reason.startswith("Train: MaxRuntimeExceeded: the job was stopped after its 1 s")
