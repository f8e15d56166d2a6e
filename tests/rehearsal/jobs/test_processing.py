"""Processing jobs: what they read, write and say when they fail."""

import json

import pytest

from tests.rehearsal.jobs.pipelines import JOB, PIPELINE, Pipelines, processing, training

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save


def test_a_processing_job_reads_its_inputs_and_its_outputs_are_uploaded(pipelines: Pipelines) -> None:
    pipelines.put("in/a.txt", b"one")
    pipelines.put("in/deep/b.txt", b"two")
    pipelines.put("input-of-another/c.txt", b"three")
    script = """
inp, out = ml / "processing/input/data", ml / "processing/output/made"
(out / "sub").mkdir()
(out / "sub" / "list.txt").write_text(" ".join(sorted(str(p.relative_to(inp)) for p in inp.rglob("*") if p.is_file())))
"""
    execution = pipelines.run(processing("Prepare", script, {"data": "s3://data/in"}, {"made": "s3://data/out"}))
    assert execution.status == "Succeeded", execution.failure_reason
    assert pipelines.get("out/sub/list.txt") == b"a.txt deep/b.txt"
    assert pipelines.asked == [("sagemaker", PIPELINE), ("s3", JOB), ("logs", JOB)]


def test_a_manifest_brings_just_the_files_that_it_lists(pipelines: Pipelines) -> None:
    for name in ("a", "b", "c"):
        pipelines.put(f"set/{name}.tar", name.encode())
    pipelines.put("set.manifest", json.dumps([{"prefix": "s3://data/set/"}, "a.tar", "c.tar"]).encode())
    script = "say(*sorted(p.name for p in (ml / 'processing/input/data').iterdir()))"
    execution = pipelines.run(processing("P", script, {"data": ("s3://data/set.manifest", "ManifestFile")}))
    assert execution.status == "Succeeded", execution.failure_reason
    assert pipelines.lines() == ["a.tar c.tar"]


def test_a_manifest_cannot_write_outside_its_folder(pipelines: Pipelines) -> None:
    pipelines.put("x", b"evil")
    pipelines.put("set.manifest", json.dumps([{"prefix": "s3://data/set/"}, "../../x"]).encode())
    execution = pipelines.run(processing("P", "", {"data": ("s3://data/set.manifest", "ManifestFile")}))
    assert execution.status == "Failed"
    assert "'../../x' would leave its folder" in execution.failure_reason


def test_an_input_without_objects_fails_the_step_with_its_uri(pipelines: Pipelines) -> None:
    execution = pipelines.run(processing("P", "", {"data": "s3://data/nothing/here"}))
    assert execution.status == "Failed"
    assert execution.failure_reason.startswith("P: ClientError: no S3 objects found under s3://data/nothing/here")
    assert [step["StepStatus"] for step in execution.steps] == ["Failed"]


def test_a_failing_program_gives_its_own_reason(pipelines: Pipelines) -> None:
    script = """
(ml / "output").mkdir(exist_ok=True); (ml / "output" / "failure").write_text("The class cat is empty.")
sys.exit(1)"""
    execution = pipelines.run(training("Train", script))
    assert execution.failure_reason == "Train: AlgorithmError: The class cat is empty. (exit code 1)"
    (step,) = execution.steps
    assert step["StepStatus"] == "Failed"
    assert step["FailureReason"] == "AlgorithmError: The class cat is empty. (exit code 1)"
    assert step["EndTime"] >= step["StartTime"]
    assert pipelines.keys("runs") == []


def test_a_program_that_gives_no_reason_is_quoted_from_its_log(pipelines: Pipelines) -> None:
    execution = pipelines.run(training("Train", "raise ValueError('what a pity')"))
    assert execution.failure_reason.endswith("ValueError: what a pity (exit code 1)")
