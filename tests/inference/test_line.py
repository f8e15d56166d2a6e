"""Who has to wait is told for how long, from what the pictures before took."""

import asyncio
import threading
import time
from functools import partial

import pytest

from inference import admission as line
from inference.admission import Line
from inference.errors import Refused


def after(refused: pytest.ExceptionInfo[Refused]) -> str:
    assert (refused.value.status, refused.value.code) == (503, "busy")
    return refused.value.headers["Retry-After"] if refused.value.headers else ""


def test_nobody_is_refused_while_nothing_has_been_measured() -> None:
    Line(1, 0.001).admit(1 + line._WAITING)


def test_whoever_would_be_answered_too_late_is_refused_at_once_and_told_when_half_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = Line(2, seconds=30)
    monkeypatch.setattr(found, "_service", 6.0)
    found.admit(12)  # the last of them is begun after 10 pictures on 2 workers: 30 seconds
    with pytest.raises(Refused) as refused:
        found.admit(13)
    assert after(refused) == "17"


def test_a_list_longer_than_the_line_is_refused_whole() -> None:
    found = Line(1, seconds=30)
    with pytest.raises(Refused) as refused:
        found.admit(2 + line._WAITING)
    assert after(refused) == "1"


def test_the_time_of_a_picture_is_a_running_mean_and_waiting_is_no_part_of_it() -> None:
    found = Line(1, seconds=30)

    def work(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    async def run() -> list[tuple[float, float]]:
        return await asyncio.gather(*[found.join(partial(work, seconds)) for seconds in (0.1, 0.2)])

    (first, waited), (second, waited_longer) = asyncio.run(run())
    assert (first, second) == (0.1, 0.2)
    assert waited < 0.09 < waited_longer < 0.19
    assert found._service == pytest.approx(0.11, abs=0.03)


def test_a_cancelled_picture_leaves_its_place_at_once_and_one_under_way_at_its_end() -> None:
    found, go = Line(1, seconds=30), threading.Event()

    async def run() -> None:
        jobs = [found.join(lambda: go.wait(20)) for _ in range(3)]
        while found._pool._work_queue.qsize() > 2:
            await asyncio.sleep(0.001)
        for job in jobs:
            job.cancel()
        await asyncio.sleep(0.05)
        assert found._inside == 1
        go.set()

    asyncio.run(run())
    found._pool.shutdown()
    assert found._inside == 0
