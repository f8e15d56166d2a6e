"""A job of several hosts ends on all of them, with the reason of the rank that failed, whatever that rank does.

Launchers and workers are real processes; in place of the learning the workers do what the test says.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.hosts_of_a_job import Crowd, stand_in


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Crowd]:
    """Two hosts; each test ends them within half a minute."""
    two = Crowd(tmp_path, ["algo-1", "algo-2"])
    yield two
    two.close()


@pytest.mark.parametrize(
    ("work", "told"),
    [
        ("raise ValueError('no such thing')", ": ValueError: no such thing"),
        ("raise MemoryError", ": The job ran out of memory; choose a larger instance or a smaller batch_size."),
        ("os._exit(7)", " ended with code 7 and gave no reason; see the job's log."),
        ("os.abort()", " was ended by SIGABRT and gave no reason; see the job's log."),
    ],
)
def test_the_reason_of_the_rank_that_dies_is_told_by_every_host(work: str, told: str, crowd: Crowd) -> None:
    crowd.start(stand_in(f"if rank == 1:\n    {work}"))
    assert crowd.reason() == f"Rank 1 on algo-2{told}\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_job_on_every_host(rank: int, crowd: Crowd) -> None:
    crowd.start(stand_in())
    os.kill(crowd.begun()[rank], signal.SIGKILL)
    assert crowd.reason().startswith(f"Rank {rank} on algo-{rank + 1} was killed, most often for lack of memory")


@pytest.mark.parametrize(("gone", "left"), [("algo-1", "algo-2"), ("algo-2", "algo-1")])
def test_a_host_that_vanishes_ends_the_job_on_the_others(gone: str, left: str, crowd: Crowd) -> None:
    crowd.start(stand_in())
    crowd.begun()
    with crowd.processes.pop(gone) as process:
        process.kill()
    assert crowd.reason() == f"The host {gone} is gone without a word.\n"


def test_the_cause_is_told_and_not_the_complaint_that_came_first(crowd: Crowd) -> None:
    complaint, cause = "raise RuntimeError('gloo: Connection closed by peer')", "raise ValueError('the cause')"
    crowd.start(stand_in(f"if rank == 0:\n    {complaint}\nelse:\n    time.sleep(1.5)\n    {cause}"))
    assert crowd.reason() == "Rank 1 on algo-2: ValueError: the cause\n"


def test_a_complaint_without_a_cause_is_told_too(crowd: Crowd) -> None:
    crowd.start(stand_in("if rank == 0:\n    raise RuntimeError('Connection closed by peer')"))
    told = "the exchange with the other workers broke (RuntimeError: Connection closed by peer)"
    assert crowd.reason() == f"Rank 0 on algo-1: {told}\n"


def test_a_worker_that_ignores_the_end_is_killed(crowd: Crowd) -> None:
    crowd.start(stand_in("if rank == 1:\n    raise ValueError('over')\nwhile True:\n    time.sleep(1)"))
    assert crowd.reason() == "Rank 1 on algo-2: ValueError: over\n"


@pytest.mark.long
def test_a_rank_that_hangs_while_it_starts_ends_the_job(crowd: Crowd) -> None:
    crowd.start("if program == 'training.train.worker' and rank == 1:\n    time.sleep(1000)\n" + stand_in())
    assert crowd.reason() == "Rank 1 on algo-2 is stuck: it has not moved for 15 s.\n"


@pytest.mark.long
def test_a_rank_that_is_stopped_ends_the_job(crowd: Crowd) -> None:
    crowd.start(stand_in())
    os.kill(crowd.begun()[1], signal.SIGSTOP)
    assert crowd.reason() == "Rank 1 on algo-2 is stuck: it has not moved for 15 s.\n"


@pytest.mark.long
def test_a_rank_that_waits_for_others_is_not_taken_for_stuck(crowd: Crowd) -> None:
    crowd.start(stand_in("time.sleep(25)\nif rank == 0:\n    raise ValueError('after a long wait')"))
    assert crowd.reason() == "Rank 0 on algo-1: ValueError: after a long wait\n"
