"""What the replies of one rate come to, and the search for the highest one that holds."""

from collections.abc import Callable

import pytest

from kennel.errors import KennelError
from kennel.loadtest.outcome import Load, Reply, judge, percentile
from kennel.loadtest.search import PRECISE, search


def replies(count: int, *, latency: float = 0.010, every: float = 0.1, first: float = 0.0) -> list[Reply]:
    return [Reply(meant, meant, meant + latency) for meant in (first + every * number for number in range(count))]


def judged(given: list[Reply], *, planned: int, since: float = 0.0, seconds: float = 10.0, p99: float = 50.0) -> Load:
    return judge(given, rate=planned / seconds, planned=planned, since=since, seconds=seconds, p99_ms=p99)


def test_a_rate_holds_when_all_are_answered_and_99_of_100_in_time() -> None:
    late = [Reply(9.9, 9.9, 10.5)]
    assert judged(replies(99) + late, planned=100).held
    assert not judged(replies(98) + 2 * late, planned=100).held


def test_one_failure_breaks_a_rate_even_while_it_warms_up() -> None:
    warm = Reply(0.5, 0.5, 0.6, error="503: busy")
    load = judged([warm, *replies(100, first=2.0)], planned=100, since=2.0)
    assert (load.held, load.failed, load.error) == (False, 1, "503: busy")


def test_a_rate_whose_requests_were_not_all_sent_does_not_hold() -> None:
    assert not judged(replies(99), planned=100).held
    assert not judged([], planned=0).held


def test_latency_counts_from_when_a_request_was_meant_to_go() -> None:
    load = judged([Reply(1.0, 1.2, 1.25)], planned=1, p99=240.0)
    assert load.p50_ms == pytest.approx(250.0)
    assert not load.held
    assert load.late_ms == pytest.approx(200.0)


def test_the_warm_up_is_in_no_figure() -> None:
    slow = replies(20, latency=0.8)
    load = judged(slow + replies(100, first=2.8), planned=100, since=2.8)
    assert (load.requests, load.held) == (100, True)
    assert load.p99_ms == pytest.approx(10.0)


def test_concurrency_is_littles_law_and_the_peak_is_taken_in_tens_of_seconds() -> None:
    alone = replies(200, latency=0.05)  # 10 a second, 50 ms each, one at a time
    crowd = [Reply(3.0, 3.0, 3.5)] * 7  # in the first ten seconds, beside the one that comes at 3.0
    load = judged(alone + crowd, planned=207, seconds=20.0)
    assert load.concurrency == pytest.approx((200 * 0.05 + 7 * 0.5) / 20)
    assert load.concurrency_peak == (8 + 1) / 2


def test_what_began_before_the_counted_seconds_is_in_flight_in_them() -> None:
    load = judged([Reply(0.0, 0.0, 6.0), Reply(2.0, 2.0, 3.0)], planned=1, since=1.0, seconds=10.0)
    assert load.concurrency == pytest.approx((5.0 + 1.0) / 10)
    assert load.concurrency_peak == 2


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert percentile([float(value) for value in range(1, 101)], share) == expected


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
