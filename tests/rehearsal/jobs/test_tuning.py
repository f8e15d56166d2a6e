"""Tuning jobs: trials, and the best of them."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.rehearsal.jobs.pipelines import Pipelines, learning, processing

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save


def _tuning(ranges: dict[str, Any], direction: str = "Maximize", trials: int = 3) -> dict[str, Any]:
    untold = learning("")
    del untold["AlgorithmSpecification"]["ContainerEntrypoint"]  # which trials do not know
    arguments = {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": direction, "MetricName": "valid_accuracy"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": trials, "MaxParallelTrainingJobs": 1},
            "ParameterRanges": ranges,
            "RandomSeed": 3,
        },
        "TrainingJobDefinition": {"StaticHyperParameters": {"model": "m"}, **untold},
    }
    return {"Name": "Tune", "Type": "Tuning", "Arguments": arguments}


_RANGES = {
    "ContinuousParameterRanges": [
        {"Name": "rate", "MinValue": "0.0001", "MaxValue": "0.1", "ScalingType": "Logarithmic"}
    ],
}
_TRIAL = "rate = config['hyperparameters']['rate']; say('valid_accuracy=' + rate); (ml / 'model/m').write_text(rate)"


@pytest.mark.parametrize(("direction", "choose"), [("Maximize", max), ("Minimize", min)])
def test_tuning_hands_on_the_best_trial(pipelines: Pipelines, direction: str, choose: Callable[..., float]) -> None:
    best = {
        "Std:Join": {"On": "/", "Values": ["s3://data/runs", {"Get": "Steps.Tune.BestTrainingJob.TrainingJobName"}]}
    }
    script = """
import tarfile
(archive,) = (ml / "processing/input/model").rglob("model.tar.gz")
say(tarfile.open(archive).extractfile("m").read().decode())"""
    read = processing("Read", script, {"model": best})
    execution = pipelines.run(_tuning(_RANGES, direction), read, program=_TRIAL)
    assert execution.status == "Succeeded", execution.failure_reason
    (trials,) = (facts["TrainingJobSummaries"] for facts in execution.jobs.values() if "TrainingJobSummaries" in facts)
    tried = [float(trial["TunedHyperParameters"]["rate"]) for trial in trials]
    assert len(set(tried)) == 3
    assert all(0.0001 <= rate <= 0.1 for rate in tried)
    values = [trial["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for trial in trials]
    assert values == tried
    assert len(pipelines.keys("runs")) == 3
    assert f"{choose(tried):.8g}" in pipelines.lines()


def test_a_trial_that_fails_or_reports_no_number_is_never_the_best(pipelines: Pipelines) -> None:
    script = "say('valid_accuracy=nan') if float(config['hyperparameters']['rate']) < 0.003 else sys.exit(1)"
    execution = pipelines.run(_tuning(_RANGES), program=script)
    assert execution.status == "Failed"
    assert execution.failure_reason.startswith("Tune: No trial reported the objective. AlgorithmError")


def test_a_kind_of_range_that_no_template_uses_is_refused(pipelines: Pipelines) -> None:
    ranges = {"IntegerParameterRanges": [{"Name": "depth", "MinValue": "2", "MaxValue": "4"}]}
    assert "IntegerParameterRanges cannot be rehearsed" in pipelines.run(_tuning(ranges)).failure_reason
