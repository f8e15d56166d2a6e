"""The most that a run can cost, of the very definition that is deployed."""

from typing import Any

import pytest

from kennel.errors import KennelError
from kennel.prices import Prices, dollars, read_prices
from kennel.rehearsal.jobs.language import DefinitionError, resolve_parameters
from kennel.train.launch import Job, longest_jobs
from stacks.config import DEV, PROD, TrainingSettings
from stacks.pipeline.definition import pipeline_definition
from stacks.pipeline.requests import Jobs
from training.hyperparameters import Hyperparameters, parameter_name

HOUR = 3600
PRICES = Prices("us-east-1", "2026-11-21", {"ml.m5.xlarge": 0.5, "ml.m5.4xlarge": 2.0})


@pytest.fixture(scope="module")
def definition() -> dict[str, Any]:
    jobs = Jobs(name="k", image="i", role_arn="r", bucket="b", key_arn="y", vpc=None, settings=TrainingSettings())
    names = {"inference_image": "i", "model_group": "g", "runtime": "openvino"}
    return pipeline_definition(jobs, **names, approval_status="Approved")


def bound(definition: dict[str, Any], **given: str) -> list[Job]:
    return longest_jobs(definition, resolve_parameters(definition, {"DataManifest": "m", **given}))


def test_a_plain_run_has_three_jobs_at_their_limits(definition: dict[str, Any]) -> None:
    assert bound(definition) == [
        Job("Prepare", "ml.m5.xlarge", 1, 4 * HOUR),
        Job("Train", "ml.m5.xlarge", 1, 24 * HOUR),
        Job("Evaluate", "ml.m5.xlarge", 1, 4 * HOUR),
    ]


def test_instances_and_their_type_are_those_asked_for_and_processing_keeps_its_own(definition: dict[str, Any]) -> None:
    prepare, train, _ = bound(definition, InstanceCount="4", InstanceType="ml.m5.4xlarge")
    assert train == Job("Train", "ml.m5.4xlarge", 4, 24 * HOUR)
    assert train.cost(PRICES) == 24 * 4 * 2.0
    assert prepare.cost(PRICES) == 4 * 0.5


def test_spot_counts_at_the_full_price(definition: dict[str, Any]) -> None:
    assert [job.step for job in bound(definition, Spot="true")] == ["Prepare", "TrainSpot", "EvaluateSpot"]
    assert bound(definition, Spot="true")[1].cost(PRICES) == bound(definition)[1].cost(PRICES)


def test_every_trial_counts_where_prepare_may_find_that_the_whole_network_learns(definition: dict[str, Any]) -> None:
    tune = bound(definition, TuneTrials="8", InstanceCount="2")[1]
    assert tune == Job("TuneTuned", "ml.m5.xlarge", 2, 24 * HOUR, copies=8)
    assert tune.cost(PRICES) == 8 * 2 * 24 * 0.5
    spot = bound(definition, TuneTrials="8", Spot="true")
    assert [job.step for job in spot] == ["Prepare", "TuneTunedSpot", "EvaluateTunedSpot"]


def test_the_trials_of_a_head_run_in_one_job(definition: dict[str, Any]) -> None:
    assert bound(definition, TuneTrials="8", Mode="head")[1] == Job("Train", "ml.m5.xlarge", 1, 24 * HOUR)


def test_every_branch_of_the_pipeline_is_counted_whole(definition: dict[str, Any]) -> None:
    jobs = {"Training", "Tuning", "Processing"}
    branches = [step["Arguments"]["IfSteps"] for step in definition["Steps"] if step["Name"].startswith("Choose")]
    expected = [["Prepare", *(one["Name"] for one in steps if one["Type"] in jobs)] for steps in branches]
    given = [{"TuneTrials": trials, "Spot": spot} for trials in ("0", "2") for spot in ("false", "true")]
    assert [[job.step for job in bound(definition, **one)] for one in given] == expected


def test_a_job_without_a_price_has_no_cost_and_is_still_told(definition: dict[str, Any]) -> None:
    dear = {**definition, "Parameters": [{**one, "EnumValues": None} for one in definition["Parameters"]]}
    (train,) = [job for job in bound(dear, InstanceType="ml.p9.huge") if job.step == "Train"]
    assert train.cost(PRICES) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"Spot": "yes"}, "Spot must be one of true, false, not 'yes'"),
        ({"Epoch": "3"}, "Unknown pipeline parameters: Epoch; known are DataManifest"),
        ({"InstanceCount": "two"}, "InstanceCount must be of type Integer"),
    ],
)
def test_a_parameter_that_the_definition_does_not_allow_is_refused(
    definition: dict[str, Any], given: dict[str, str], says: str
) -> None:
    with pytest.raises(DefinitionError, match=says):
        resolve_parameters(definition, {"DataManifest": "m", **given})


def test_every_hyperparameter_is_a_parameter_of_the_pipeline(definition: dict[str, Any]) -> None:
    declared = {one["Name"] for one in definition["Parameters"]}
    assert {parameter_name(name) for name in Hyperparameters().to_dict()} - declared == {"Trials"}  # there: TuneTrials


def test_every_type_that_the_pipeline_allows_has_a_price() -> None:
    prices = read_prices()
    for stage in (DEV, PROD):
        assert {*stage.training.instance_types, stage.training.processing_instance_type} <= set(prices.per_hour)
    assert PROD.workbench is not None
    assert PROD.workbench.trainer_instance_type in prices.per_hour


def test_prices_name_their_region_when_the_caller_is_elsewhere() -> None:
    assert PRICES.note("eu-west-1") == "Prices: us-east-1, on demand, as of 2026-11-21; those of eu-west-1 may differ."
    assert PRICES.note("us-east-1") == PRICES.note("") == "Prices: us-east-1, on demand, as of 2026-11-21."


@pytest.mark.parametrize(
    ("amount", "shown"), [(None, "unknown"), (0.0, "$0.00"), (0.0123, "$0.0123"), (7.355, "$7.36"), (1234.5, "$1,234")]
)
def test_dollars_are_as_precise_as_they_are_small(amount: float | None, shown: str) -> None:
    assert dollars(amount) == shown


def test_a_broken_table_of_prices_is_said(tmp_path: Any) -> None:
    (tmp_path / "prices.json").write_text('{"region": "us-east-1"}')
    with pytest.raises(KennelError, match=r"prices\.json cannot be read"):
        read_prices(tmp_path / "prices.json")
