"""Who has to wait is told for how long, from what the pictures before took."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from inference import admission
from inference.admission import WorkQueue
from inference.errors import Refused


def retry_after(refused: pytest.ExceptionInfo[Refused]) -> str:
    assert (refused.value.status, refused.value.code) == (429, "busy")
    return refused.value.headers["Retry-After"] if refused.value.headers else ""


def test_nothing_is_refused_before_a_picture_has_been_measured() -> None:
    WorkQueue(1, 0.001).admit(1 + admission._WAITING)


def test_what_would_be_answered_too_late_is_refused_and_told_when_half_of_the_queue_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue = WorkQueue(2, seconds=30)
    monkeypatch.setattr(queue, "_mean_seconds", 6.0)
    queue.admit(12)  # the last of them is begun after 10 pictures on 2 workers: 30 seconds
    with pytest.raises(Refused) as refused:
        queue.admit(13)
    assert retry_after(refused) == "17"


def test_a_list_longer_than_the_queue_is_refused_whole() -> None:
    queue = WorkQueue(1, seconds=30)
    with pytest.raises(Refused) as refused:
        queue.admit(2 + admission._WAITING)
    assert retry_after(refused) == "1"


def test_the_time_of_a_picture_is_a_running_mean_and_waiting_is_no_part_of_it() -> None:
    now = [0.0]
    queue = WorkQueue(1, seconds=30, clock=lambda: now[0])

    def work(seconds: Iterator[float]) -> float:
        now[0] += (took := next(seconds))
        return took

    async def run() -> list[tuple[float, float]]:
        submitted = threading.Event()
        queue._pool.submit(submitted.wait, 60)  # so that both are submitted at the time 0
        jobs = [queue.submit(lambda: work(seconds)) for _ in range(2)]
        submitted.set()
        return await asyncio.gather(*jobs)

    seconds = iter((1.0, 2.0))
    assert asyncio.run(run()) == [(1.0, 0.0), (2.0, 1.0)]
    assert queue._mean_seconds == pytest.approx(1.1)  # a weight of 0.1 for the second


def test_a_cancelled_picture_frees_its_place_at_once_and_one_under_way_at_its_end() -> None:
    queue, begun, go = WorkQueue(1, seconds=30), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(60)

    async def run() -> None:
        jobs = [queue.submit(work) for _ in range(3)]
        await asyncio.to_thread(begun.wait, 60)
        for job in jobs:
            job.cancel()
        while queue._inside > 1:
            await asyncio.sleep(0.001)
        assert not go.is_set()
        go.set()

    asyncio.run(run())
    queue._pool.shutdown()
    assert queue._inside == 0
