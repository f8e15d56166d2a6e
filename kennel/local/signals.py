"""Ctrl-C and SIGTERM while jobs run: the first asks for an end at the next checkpoint, the second forces it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Asked:
    """Callable: whether somebody has asked for the end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._asked, self._say = False, say

    def __call__(self) -> bool:
        return self._asked

    def ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        self._say("Stopping; the checkpoint is kept. Once more ends it at once.")


@contextmanager
def asked_to_stop(say: Callable[[str], None]) -> Iterator[Asked]:
    asked = Asked(say)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, asked.ask) for number in numbers]
    try:
        yield asked
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
