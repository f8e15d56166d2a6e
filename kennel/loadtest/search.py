"""A search for the highest rate that holds the target, in a bounded number of runs."""

from collections.abc import Callable

from kennel.errors import KennelError
from kennel.loadtest.load import Load

PRECISE = 1.05  # the rate that broke over the one that held, at the end
_DOUBLINGS = 12
_HALVINGS = 5
_CONFIRMATIONS = 4
_BACK = 0.92  # of the rate, when a confirmation breaks


def search(run: Callable[[float], Load], confirm: Callable[[float], Load], first: float) -> list[Load]:
    """Return the loads that held, ascending in rate; the last one held twice, in `run` and in the longer `confirm`.

    Doubles from `first` until a rate breaks, halves the gap (as ratios) until it is 5 %, then confirms, going down
    where chance had helped. Raise KennelError where nothing holds.
    """
    held: dict[float, Load] = {}

    def holds(rate: float) -> bool:
        load = run(rate)
        if load.held:
            held[rate] = load
        return load.held

    low, high = _bracket(holds, first)
    while high / low > PRECISE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    best = _confirmed(confirm, low)
    return [*(load for rate, load in sorted(held.items()) if rate < best.rate), best]


def _bracket(holds: Callable[[float], bool], first: float) -> tuple[float, float]:
    """Return a rate that held and a higher one that broke."""
    if holds(first):
        for rate in (first * 2**power for power in range(1, _DOUBLINGS + 1)):
            if not holds(rate):
                return rate / 2, rate
        raise KennelError(f"Even {rate:.0f} requests a second hold: this load cannot find the limit.")
    for rate in (first / 2**power for power in range(1, _HALVINGS + 1)):
        if holds(rate):
            return rate, rate * 2
    raise KennelError(
        f"Not even {rate:.2g} requests a second hold the target: give a higher --p99, or look at the server's log."
    )


def _confirmed(confirm: Callable[[float], Load], rate: float) -> Load:
    for attempt in range(_CONFIRMATIONS):
        load = confirm(rate * _BACK**attempt)
        if load.held:
            return load
    raise KennelError(
        f"No rate held twice (the last tried: {load.rate:.3g} requests a second): is something else running there?"
    )
