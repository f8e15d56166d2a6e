"""Which settings a search tries."""

from dataclasses import replace

import numpy as np

from training.hyperparameters import Hyperparameters

TUNED = ("learning_rate", "weight_decay", "label_smoothing", "batch_size", "views")
_PRIMES = (2, 3, 5, 7, 11)  # one a setting: the bases of Halton's sequence
_SPAN = 30.0  # the learning rate is tried from a thirtieth of what is given to thirty times as much
_DECAYS, _SMOOTHING, _BATCHES = (1e-5, 0.3), 0.2, (16, 512)


def settings_of(number: int, given: Hyperparameters, images: int) -> Hyperparameters:
    """Return the settings of trial `number`: 1 is what is given, the others fill the space around it evenly, as a
    Halton sequence turned by the seed does; so a longer search begins with the shorter one's trials."""
    if number == 1:
        return given
    turn = np.random.default_rng(given.seed).random(len(TUNED))
    rate, decay, smoothing, batch, views = (np.array([_halton(number, p) for p in _PRIMES]) + turn) % 1.0
    most = max(1, min(_BATCHES[1], images))
    return replace(
        given,
        learning_rate=_rounded(
            min(10.0, max(1e-9, _between(given.learning_rate / _SPAN, given.learning_rate * _SPAN, rate)))
        ),
        weight_decay=_rounded(_between(*_DECAYS, decay)),
        label_smoothing=_rounded(_SMOOTHING * smoothing),
        batch_size=round(_between(min(_BATCHES[0], most), most, batch)),
        views=min(given.views, int(views * (given.views + 1))),
    )


def _between(low: float, high: float, share: float) -> float:
    return float(low * (high / low) ** share)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _halton(number: int, base: int) -> float:
    """Return `number`'s digits in `base`, mirrored behind the point."""
    value, digit = 0.0, 1.0
    while number:
        number, rest = divmod(number, base)
        digit /= base
        value += rest * digit
    return value
