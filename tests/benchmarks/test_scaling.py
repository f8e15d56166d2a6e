"""The simulated fleet does what its rules say, to the second."""

import math
from dataclasses import replace

import pytest

from benchmarks.scaling import Fleet, Instance, Policy, patterns, table

ONE = Instance(((50.0, 4.0), (100.0, 10.0)), p99=0.5)
BY_CONCURRENCY = Policy("c", "concurrency", target=4.0)
BY_INVOCATIONS = Policy("i", "invocations", target=3000.0)
STAYS = Policy("s", None)


def fleet(policy: Policy, start: int = 240) -> Fleet:
    return Fleet(ONE, policy, start)


def test_requests_in_flight_lie_on_the_line_between_the_loads() -> None:
    assert [ONE.peak(rate) for rate in (0, 25, 50, 75, 100, 200)] == [0, 2, 4, 7, 10, 10]


def test_a_fleet_that_keeps_up_is_never_late_and_costs_its_instances() -> None:
    result = fleet(STAYS).run(lambda second: 200.0, 3600)
    assert (result.over, result.requests, result.instance_seconds) == (0, 720_000, 7200)


def test_what_cannot_be_served_in_time_is_over_the_target_and_the_backlog_has_an_end() -> None:
    crowded = fleet(STAYS)
    result = crowded.run(lambda second: 300.0, 600)
    # 100 a second are too many: after the first second half a second of work waits, after four all that may.
    assert result.over == pytest.approx(300.0 * 599)
    assert crowded.waiting == 200 * ONE.backlog


@pytest.mark.parametrize(
    ("policy", "second"),
    [
        (BY_CONCURRENCY, 29),
        (BY_INVOCATIONS, 179),
        (replace(BY_CONCURRENCY, step=True), 9),
        (replace(BY_INVOCATIONS, step=True), 59),
    ],
)
def test_a_target_is_lost_after_three_data_points_and_a_step_taken_after_one(policy: Policy, second: int) -> None:
    crowded = fleet(policy, start=10_000)
    crowded.run(lambda second: 300.0, 600)
    assert crowded.changed == second


def test_new_instances_answer_after_the_start_and_cost_from_when_they_were_asked_for() -> None:
    grown = fleet(BY_CONCURRENCY, start=100)
    grown.run(lambda second: 300.0, 129)
    assert grown.serving == 2
    grown = fleet(BY_CONCURRENCY, start=100)
    result = grown.run(lambda second: 300.0, 131)
    assert grown.serving == 4
    assert result.instance_seconds == 30 * 2 + 101 * 4


def test_the_fleet_grows_in_proportion_and_never_beyond_its_most() -> None:
    grown = fleet(replace(BY_INVOCATIONS, most=9), start=1)
    grown.run(lambda second: 130.0, 182)  # 65 a second each, where 50 are meant
    assert grown.serving == math.ceil(2 * 65 / 50)
    bounded = fleet(replace(BY_INVOCATIONS, most=3), start=1)
    bounded.run(lambda second: 900.0, 3600)
    assert bounded.serving == 3


def test_an_endpoint_that_changes_takes_no_second_change_and_the_cooldown_holds_the_next_one() -> None:
    asked = []

    class Watched(Fleet):
        def _change(self, wanted: int, second: int) -> None:
            asked.append(second) if wanted != self.serving else None
            super()._change(wanted, second)

    slow = Policy("i", "invocations", target=3000.0, most=100, out_cooldown=300)
    Watched(ONE, slow, 10).run(lambda second: 150.0 + second, 600)
    assert asked[:2] == [179, 479]


def test_it_shrinks_after_a_quiet_quarter_of_an_hour_down_to_its_least() -> None:
    kept = fleet(BY_CONCURRENCY, start=1)
    kept.run(lambda second: 300.0 if second < 60 else 20.0, 900)
    assert kept.serving == 4
    kept = fleet(BY_CONCURRENCY, start=1)
    kept.run(lambda second: 300.0 if second < 60 else 20.0, 1100)
    assert kept.serving == 2


def test_the_table_has_every_pattern_and_policy_and_is_the_same_each_time() -> None:
    found = table(ONE, [STAYS, BY_CONCURRENCY], 240)
    assert list(found) == list(patterns(ONE.rate))
    assert all(list(one) == ["s", "c"] for one in found.values())
    assert found == table(ONE, [STAYS, BY_CONCURRENCY], 240)
