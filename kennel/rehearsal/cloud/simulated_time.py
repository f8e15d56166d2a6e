"""Simulated time: a minute passes as fast as what happens in it is done, and only while somebody waits for it."""

import math
import threading
from collections.abc import Callable


class SimulatedTime:
    """Minutes since the embedded AWS was started. Updates of endpoints and CloudFormation's monitoring wait here.

    `during` are called in each minute (callers' requests, scheduled rules), `at_end` after them (alarms).
    """

    def __init__(self) -> None:
        self.minute = 0
        self.during: list[Callable[[], object]] = []
        self.at_end: list[Callable[[], object]] = []
        self._passing = threading.Lock()

    def wait(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let `seconds` pass, in whole minutes; return True at the end of the first one after which `until` is true."""
        for _ in range(math.ceil(seconds / 60)):
            with self._passing:
                for call in (*self.during, *self.at_end):
                    call()
                self.minute += 1
            if until():
                return True
        return False
