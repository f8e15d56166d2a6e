"""The network, whatever computes it: probabilities from pixels, and whether it is well."""

import threading
import time
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.artifact import Artifact
from inference.errors import StartError
from inference.runtime_selection import Choice

_SICK_AFTER = 3  # failures in a row
_STUCK_AFTER = 30.0  # seconds for one picture


class Runtime(Protocol):
    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[crop, crop, 3] to [classes]; called by as many threads at once as were chosen. Raises RuntimeError."""


def multiplies(runtime: str) -> dict[str, str]:
    """From each precision that the hardware is made for to what it has for that; float32 is always there."""
    return _module(runtime).multiplies()  # type: ignore[no-any-return]


def load(artifact: Artifact, choice: Choice) -> Runtime:
    """Raises StartError when the files do not fit."""
    return _module(choice.runtime).load(artifact, choice)  # type: ignore[no-any-return]


def _module(runtime: str) -> Any:
    """With the library of this runtime, and of no other."""
    try:
        return import_module(f"inference.on_{runtime}")
    except ImportError as error:
        raise StartError(f"this image has no {runtime} ({error}); build it with RUNTIME={runtime}.") from error


class Network:
    def __init__(self, runtime: Runtime, temperature: float = 1.0) -> None:
        self._runtime, self._temperature = runtime, temperature
        self._lock = threading.Lock()
        self._failures = 0
        self._began: dict[int, float] = {}  # time.monotonic() of the inferences that run, by thread

    @property
    def healthy(self) -> bool:
        """False after repeated failures, and while an inference does not come back."""
        with self._lock:
            oldest = min(self._began.values(), default=None)
        stuck = oldest is not None and time.monotonic() - oldest > _STUCK_AFTER
        return self._failures < _SICK_AFTER and not stuck

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """[crop, crop, 3] to probabilities [classes]; raises RuntimeError when the network fails."""
        thread, failed = threading.get_ident(), True
        with self._lock:
            self._began[thread] = time.monotonic()
        try:
            logits = np.asarray(self._runtime.logits(pixels), np.float64)
            if not np.isfinite(logits).all():
                raise RuntimeError("the network's output holds numbers that are not finite")
            failed = False
        finally:
            with self._lock:
                del self._began[thread]
                self._failures = self._failures + 1 if failed else 0
        odds = np.exp((logits - logits.max()) / self._temperature)  # in this order no temperature overflows the best
        return np.asarray(odds / odds.sum())
