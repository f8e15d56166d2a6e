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
    "IntegerParameterRanges": [{"Name": "depth", "MinValue": "2", "MaxValue": "4"}],
    "CategoricalParameterRanges": [{"Name": "kind", "Values": ["a", "b"]}],
}
_TRIAL = "rate = config['hyperparameters']['rate']; say('valid_accuracy=' + rate); (ml / 'model/m').write_text(rate)"


@pytest.mark.parametrize(("direction", "choose"), [("Maximize", max), ("Minimize", min)])
def test_tuning_hands_on_the_best_trial(pipelines: Pipelines, direction: str, choose: Callable[..., float]) -> None:
    best = {
        "Std:Join": {"On": "/", "Values": ["s3://data/runs", {"Get": "Steps.Tune.BestTrainingJob.TrainingJobName"}]}
    }
    read = processing("Read", "import tarfile", {"model": best})
    execution = pipelines.run(_tuning(_RANGES, direction), read, program=_TRIAL)
    assert execution.status == "Succeeded", execution.failure_reason
    tried = [event.metrics["valid_accuracy"] for event in pipelines.events if event.kind == "metric"]
    assert len(set(tried)) == 3
    assert all(0.0001 <= rate <= 0.1 for rate in tried)
    finished = next(event for event in pipelines.events if event.kind == "finished")
    assert finished.detail.startswith(f"best valid_accuracy {choose(tried):g} with rate")
    assert {event.job for event in pipelines.events if event.kind == "metric"} == {"1/3", "2/3", "3/3"}
    ended = [event for event in pipelines.events if event.kind == "trial"]
    assert [(event.job, event.metrics["valid_accuracy"]) for event in ended] == list(
        zip(("1/3", "2/3", "3/3"), tried, strict=True)
    )
    assert f"rate {tried[0]:.8g}" in ended[0].detail
    assert len(pipelines.keys("runs")) == 3


def test_a_trial_that_fails_or_reports_no_number_is_never_the_best(pipelines: Pipelines) -> None:
    script = "say('valid_accuracy=nan') if config['hyperparameters']['kind'] == 'a' else sys.exit(1)"
    execution = pipelines.run(_tuning(_RANGES), program=script)
    assert execution.status == "Failed"
    assert execution.failure_reason.startswith("Tune: No trial reported the objective. AlgorithmError")
