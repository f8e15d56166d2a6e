"""A short turn of benchmarks/reliability.py: the whole chain under load while it breaks."""

import pytest

from benchmarks.lib.fault_proxy import Mix
from benchmarks.lib.report import Figures
from benchmarks.reliability import measure

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    mix = Mix(throttled=0.1, reset=0.12, slow=0.05, silent=0)
    return measure(tmp_path_factory.mktemp("load"), callers=6, seconds=15, kill_every=3, mix=mix)


def test_no_request_is_lost_and_no_answer_is_wrong(measured: Figures) -> None:
    assert measured["told"] == []
    assert (measured["lost"], measured["wrong"]) == (0, 0)
    assert measured["right"] > 50


def test_every_picture_is_answered_to_those_who_come_back(measured: Figures) -> None:
    assert measured["never_answered"] == 0
    assert measured["right"] == measured["pictures"]
    assert measured["retries"] == sum(measured["errors"].values())


def test_the_only_errors_are_those_that_say_come_again(measured: Figures) -> None:
    assert set(measured["errors"]) <= {"endpoint_throttled", "endpoint_unavailable"}


def test_each_fault_was_really_there(measured: Figures) -> None:
    injected = measured["injected"]
    assert injected.keys() >= {"throttled", "reset_before", "reset_after", "reset_within", "slow", "passed"}
    assert injected["throttled"] > measured["errors"].get("endpoint_throttled", 0)  # the function tries again itself
    assert {kill["servers"] for kill in measured["kills"]} == {1, 2}  # of two


def test_right_answers_come_again_soon_after_all_servers_were_killed(measured: Figures) -> None:
    assert all(kill["recovered"] < 15 for kill in measured["kills"])
