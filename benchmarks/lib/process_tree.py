"""What a program and everything that it started use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]

_EVERY = 0.5  # seconds; to add up a large process's pages takes it milliseconds in which it waits


def processes(pid: int) -> list[psutil.Process]:
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.Error:
        return []


def memory_mib(pid: int) -> float:
    """Proportional set sizes added up: pages that processes share count once."""
    total = 0
    for process in processes(pid):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # it ended meanwhile
            continue
    return total / 2**20


def cpu_seconds(pid: int) -> float:
    """User and system time of those that live."""
    total = 0.0
    for process in processes(pid):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


@contextmanager
def peak_memory(pid: int) -> Iterator[list[float]]:
    """While the block runs, the one number in the list is the most memory so far, in MiB."""
    peak, done = [memory_mib(pid)], threading.Event()

    def watch() -> None:
        while not done.wait(_EVERY):
            peak[0] = max(peak[0], memory_mib(pid))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
