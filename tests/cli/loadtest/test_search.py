"""The search for the highest rate that holds."""

from collections.abc import Callable

import pytest

from kennel.errors import KennelError
from kennel.loadtest.command import PRECISE, search
from kennel.loadtest.load import Load


def server(limit: float) -> tuple[Callable[[float], Load], list[float]]:
    """Holds every rate up to `limit`; the list has the rates that were tried."""
    tried: list[float] = []

    def run(rate: float) -> Load:
        tried.append(rate)
        return Load(rate, rate <= limit, 10, 0, 1.0, 1.0, 1.0, rate / 10, rate / 5, 0.0)

    return run, tried


@pytest.mark.parametrize("limit", [3.0, 7.7, 100.0, 999.0])
@pytest.mark.parametrize("first", [1.0, 20.0])
def test_the_highest_rate_is_found_within_five_percent_and_a_bounded_number_of_runs(limit: float, first: float) -> None:
    run, tried = server(limit)
    best = search(run, run, first)[-1]
    assert limit / PRECISE <= best.rate <= limit
    assert len(tried) <= 18


def test_all_loads_that_held_are_returned_in_order_of_rate_and_the_last_is_the_confirmed_one() -> None:
    run, _ = server(50.0)
    confirmed = server(50.0)[0]
    loads = search(run, lambda rate: confirmed(rate), 10.0)
    rates = [load.rate for load in loads]
    assert rates == sorted(set(rates))
    assert all(load.held for load in loads)
    assert rates[0] == 10.0


def test_a_rate_that_held_by_chance_is_lowered_until_it_holds_twice() -> None:
    run, _ = server(50.0)
    confirm, confirmed = server(45.0)
    loads = search(run, confirm, 10.0)
    assert loads[-1].rate == confirmed[-1] <= 45.0
    assert [load.rate for load in loads] == sorted(load.rate for load in loads)


def test_what_never_holds_twice_is_said_to_be_disturbed() -> None:
    with pytest.raises(KennelError, match=r"No rate held twice .* is something else running there\?"):
        search(server(50.0)[0], server(1.0)[0], 10.0)


def test_a_target_that_nothing_holds_is_refused_after_a_few_halvings() -> None:
    run, tried = server(0.0)
    with pytest.raises(KennelError, match=r"Not even 0\.31 requests a second hold the target: give a higher --p99"):
        search(run, run, 10.0)
    assert len(tried) == 6


def test_a_server_without_a_limit_ends_the_search() -> None:
    run, tried = server(1e9)
    with pytest.raises(KennelError, match="Even 40960 requests a second hold"):
        search(run, run, 10.0)
    assert len(tried) == 13
