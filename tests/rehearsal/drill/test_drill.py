"""Bad models and functions through the synthesized Prod settings, in simulated time: what goes, and why."""

import dataclasses
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from kennel.cli import app
from kennel.rehearsal.drill.callers import TRAFFIC, Traffic
from kennel.rehearsal.drill.command import line
from kennel.rehearsal.drill.drill import BOTH, NETS, Case, Drill, Outcome, all_cases
from kennel.rehearsal.drill.functions import FUNCTIONS, LATE, WITH_HOOK, WITHOUT_HOOK, FunctionDrill, function_cases
from kennel.rehearsal.drill.models import MODELS
from kennel.rehearsal.drill.stage import embedded
from kennel.rehearsal.rehearse import synthesize

NIGHT, NORMAL, BUSY = TRAFFIC
FEW = Traffic("few", 12, 4)  # what a good model is asked for half an hour
BY_NAME = {model.name: model for model in MODELS}
NET = {net.name: net for net in NETS}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Drill, FunctionDrill]]:
    work = tmp_path_factory.mktemp("drill")
    assembly = synthesize(work / "cdk.out")
    with (
        embedded(work) as (cloud, fleets),
        Drill(cloud, fleets, assembly, "Prod", work) as models,
        FunctionDrill(models, assembly, "Prod", work) as functions,
    ):
        yield models, functions


@pytest.fixture
def drill(both: tuple[Drill, FunctionDrill]) -> Drill:
    return both[0]


@pytest.fixture
def functions(both: tuple[Drill, FunctionDrill]) -> FunctionDrill:
    return both[1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("always an error", "RollbackErrors"),
        ("wrong labels", "RollbackAnswers"),
        ("garbage archive", "at the start"),
    ],
)
def test_on_a_night_without_callers_the_probes_find_a_bad_model(drill: Drill, name: str, by: str) -> None:
    outcome = drill.run(Case(BY_NAME[name], NIGHT))
    assert (outcome.rolled_back, outcome.by, outcome.requests) == (True, by, 0)
    assert outcome.is_right
    assert outcome.stack == "UPDATE_ROLLBACK_COMPLETE"


@pytest.mark.long
def test_a_good_model_passes_also_in_place_of_a_broken_one(drill: Drill) -> None:
    outcome = drill.run(Case(BY_NAME["good"], FEW, "broken"))
    assert (outcome.rolled_back, outcome.by, outcome.stack) == (False, "", "UPDATE_COMPLETE")
    assert outcome.failed > 0  # the broken fleet's part, while the canary baked
    assert outcome.is_right


@pytest.mark.long
def test_an_overload_is_no_fault_of_a_good_model(drill: Drill) -> None:
    crowd = dataclasses.replace(BUSY, requests=BUSY.at_a_time)
    outcome = drill.run(Case(BY_NAME["good"], crowd))
    assert (outcome.rolled_back, outcome.failed) == (False, 0)
    assert outcome.busy > 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["slow", "hang", "memory hog", "NaN", "crash at the tenth request"])
def test_each_kind_of_bad_model_goes(drill: Drill, name: str) -> None:
    outcome = drill.run(Case(BY_NAME[name], NORMAL))
    assert (outcome.rolled_back, outcome.is_right) == (True, True)
    assert outcome.by in ("RollbackErrors", "RollbackLatency")


@pytest.mark.long
def test_cloudformation_alone_rolls_back_too_but_later_and_at_the_callers_cost(drill: Drill) -> None:
    error = BY_NAME["always an error"]
    both, alone = (drill.run(Case(error, FEW, net=NET[name])) for name in ("both", "CloudFormation"))
    assert (both.rolled_back, alone.rolled_back) == (True, True)
    assert both.minutes < alone.minutes
    assert both.failed < alone.failed


@pytest.mark.long
def test_only_with_the_triggers_does_cloudformation_hear_of_a_rollback_that_it_does_not_notice(drill: Drill) -> None:
    error = BY_NAME["always an error"]
    unseen, seen = (drill.run(Case(error, FEW, net=NET[f"{name}, unnoticed"])) for name in ("SageMaker", "both"))
    assert (unseen.rolled_back, unseen.stack) == (True, "UPDATE_COMPLETE")
    assert (seen.rolled_back, seen.stack) == (True, "UPDATE_ROLLBACK_COMPLETE")


FUNCTION = {one.name: one for one in FUNCTIONS}
HOUR = Traffic("an hour", 40, 4)  # four calls a minute for the new version


@pytest.mark.long
@pytest.mark.parametrize("name", ["fails at import", "internal_error always", "wrong answers"])
def test_a_bad_function_is_refused_by_the_hook_before_any_caller_meets_it(functions: FunctionDrill, name: str) -> None:
    outcome = functions.run(Case(FUNCTION[name], HOUR, net=WITH_HOOK))
    assert (outcome.rolled_back, outcome.by, outcome.requests) == (True, "hook", 0)
    assert outcome.stack == "UPDATE_ROLLBACK_COMPLETE"


@pytest.mark.long
def test_the_hook_asks_long_enough_to_see_what_breaks_after_a_hundred(functions: FunctionDrill) -> None:
    outcome = functions.run(Case(FUNCTION["good on the first hundred"], NIGHT, net=WITH_HOOK))
    assert (outcome.rolled_back, outcome.by) == (True, "hook")


@pytest.mark.long
def test_what_breaks_after_the_hooks_photos_is_left_to_the_alarms(functions: FunctionDrill) -> None:
    outcome = functions.run(Case(LATE, HOUR, net=WITH_HOOK))
    assert (outcome.rolled_back, outcome.by) == (True, "RollbackErrors")
    assert 0 < outcome.failed < outcome.requests / 10


@pytest.mark.long
def test_without_the_hook_the_alarms_on_the_new_version_take_it_back(functions: FunctionDrill) -> None:
    outcome = functions.run(Case(FUNCTION["raises always"], HOUR, net=WITHOUT_HOOK))
    assert (outcome.rolled_back, outcome.by, outcome.minutes) == (True, "RollbackErrors", 1)
    assert (outcome.requests, outcome.failed) == (40, 4)


@pytest.mark.long
@pytest.mark.parametrize("old", ["healthy", "broken"])
def test_a_good_function_passes_also_in_front_of_a_broken_model(functions: FunctionDrill, old: str) -> None:
    outcome = functions.run(Case(FUNCTION["good"], HOUR, old, WITH_HOOK))
    assert (outcome.rolled_back, outcome.stack, outcome.minutes) == (False, "UPDATE_COMPLETE", 10)
    assert outcome.failed == (0 if old == "healthy" else outcome.requests)


@pytest.mark.long
def test_hook_and_codedeploy_are_allowed_all_that_they_ask_and_no_more(functions: FunctionDrill, drill: Drill) -> None:
    functions.run(Case(FUNCTION["good"], NIGHT, net=WITH_HOOK))
    unused = {
        (one.role, one.action)
        for one in drill.cloud.unused
        if one.role.startswith("Classify/Canary") and not one.action.startswith("xray:")
    }
    assert [one for one in drill.cloud.denied if "Canary" in one] == []
    assert unused == {("Classify/CanaryRole", "lambda:GetProvisionedConcurrencyConfig")}  # of AWS's policy for it


def test_the_functions_cases_are_every_function_at_every_traffic_and_some_without_the_hook() -> None:
    cases = [*function_cases()]
    asked = {(one.released.name, one.traffic.name) for one in cases if (one.old, one.net) == ("healthy", WITH_HOOK)}
    assert len(asked - {(LATE.name, name) for name in ("normal", "busy")}) == len(FUNCTIONS) * 3
    assert {one.released.name for one in cases if one.net == WITHOUT_HOOK} < {*FUNCTION}
    assert all(one.has_names(["function"]) for one in cases)
    assert not any(one.has_names(["function"]) for one in all_cases())


def test_the_cases_are_every_model_at_every_traffic_over_both_fleets_and_behind_each_net() -> None:
    cases = [*all_cases()]
    both = {(case.released.name, case.traffic.name, case.old) for case in cases if case.net == BOTH}
    assert len(both) == len(MODELS) * 3 * 2
    for net in NETS:
        left_out = {"slow", "hang"} if net.name == "CloudFormation" else set()
        assert {case.released.name for case in cases if case.net == net} == {*BY_NAME} - left_out
    chosen = [case for case in cases if case.has_names(["slow", "night"])]
    assert [(case.released.name, case.traffic.name) for case in chosen] == [("slow", "night")] * 2


def test_a_row_shows_what_is_not_as_it_should_be() -> None:
    about = {"model": "slow", "traffic": "night", "old": "healthy", "net": "both", "bad": True, "stack": ""}
    counts = {"requests": 1200, "failed": 60, "busy": 0}
    right = Outcome(rolled_back=True, minutes=2, by="RollbackLatency", **about, **counts)  # type: ignore[arg-type]
    wrong = dataclasses.replace(right, rolled_back=False, by="")
    assert line(right).split() == [
        "slow",
        "night",
        "healthy",
        "both",
        "yes",
        "2",
        "RollbackLatency",
        "60",
        "1,200",
        "0",
    ]
    assert "NO (!)" in line(wrong)


def test_a_name_that_no_case_has_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, ["drill", "--only", "nothing"])
    assert result.exit_code == 2
    assert "No case of the drill is called nothing." in result.output
