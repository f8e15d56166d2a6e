"""PID 1 with the only worker of a job, which is a real process; in place of learning it does what the test says."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.hosts_of_a_job import Cluster, stand_in, until
from training.distributed.launcher import first_failure

UNTIL_STOPPED = """
    begun()
    while not stop.is_set:
        time.sleep(0.01)
    return False
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Cluster]:
    one = Cluster(tmp_path, ["algo-1"])
    yield one
    one.close()


def test_work_that_is_done_is_a_success(host: Cluster) -> None:
    host.start(stand_in("    return True"))
    assert host.end("algo-1") == (0, "")


def test_sigterm_lets_the_worker_write_a_checkpoint_and_ends_with_143(host: Cluster) -> None:
    host.start(stand_in(UNTIL_STOPPED))
    host.begun()
    host.processes["algo-1"].send_signal(signal.SIGTERM)
    assert host.end("algo-1") == (143, "")
    assert not (host.jobs["algo-1"].paths.output / "failure").exists()


def test_work_that_is_done_before_the_signal_is_seen_is_done(host: Cluster) -> None:
    host.start(stand_in(UNTIL_STOPPED.replace("False", "True")))
    host.begun()
    host.processes["algo-1"].send_signal(signal.SIGTERM)
    assert host.end("algo-1")[0] == 0


def test_sigterm_before_the_worker_can_answer_it_ends_with_143(host: Cluster) -> None:
    host.start("if program == 'training.distributed.worker':\n    print('importing', flush=True)\n    time.sleep(600)")
    until(host.processes["algo-1"], "importing")
    host.processes["algo-1"].send_signal(signal.SIGTERM)
    assert host.end("algo-1") == (143, "")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGKILL, "was killed, most often for lack of memory: use a larger instance or a smaller batch_size."),
        (signal.SIGSEGV, "was ended by SIGSEGV and gave no reason; see the log of the job."),
    ],
)
def test_a_worker_that_a_signal_ends_is_the_failure_reason(number: int, reason: str, host: Cluster) -> None:
    host.start(stand_in(UNTIL_STOPPED))
    os.kill(host.begun()[0], number)
    assert host.failure("algo-1") == f"Rank 0 on algo-1 {reason}\n"


def test_what_the_worker_raises_is_the_failure_reason_and_its_place_is_in_the_log(host: Cluster) -> None:
    host.start(stand_in("    raise ValueError('one\\ncause')"))
    code, output = host.end("algo-1")
    assert code == 1
    assert host.jobs["algo-1"].failure == "Rank 0 on algo-1: ValueError: one cause\n"
    assert output.startswith("Traceback")
    assert output.endswith(host.jobs["algo-1"].failure)


@pytest.mark.parametrize("error", ["TrainingError('Mend this.')", "PermissionError(13, 'no', '/a')"])
def test_what_its_reader_can_mend_has_no_traceback(error: str, host: Cluster) -> None:
    host.start(stand_in(f"    from training.errors import TrainingError\n    raise {error}"))
    code, output = host.end("algo-1")
    assert (code, output) == (1, host.jobs["algo-1"].failure)


def test_a_failure_while_it_stops_is_a_failure(host: Cluster) -> None:
    host.start(stand_in(UNTIL_STOPPED.replace("return False", "raise OSError(28, 'full', '/opt/ml/checkpoints/a')")))
    host.begun()
    host.processes["algo-1"].send_signal(signal.SIGTERM)
    assert host.failure("algo-1").startswith("Rank 0 on algo-1: No space is left for /opt/ml/checkpoints/a;")


def test_a_launcher_that_is_killed_takes_its_worker_along(host: Cluster) -> None:
    host.start(stand_in(UNTIL_STOPPED))
    host.begun()
    host.processes["algo-1"].kill()
    host.end("algo-1")  # returns when the worker, which holds the pipe too, has ended


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("hyperparameters", '{"epochs": "many"}', "Hyperparameter epochs must be a whole number, not 'many'."),
        ("hyperparameters", '{"speed": "1"}', "Unknown hyperparameter 'speed'"),
        ("hyperparameters", "[]", "must hold a JSON object."),
        ("resourceconfig", '{"current_host": "algo-3", "hosts": ["algo-1"]}', "'algo-3', which is none of ['algo-1']"),
    ],
)
def test_a_bad_configuration_is_refused_before_anything_starts(
    file: str, content: str, reason: str, host: Cluster
) -> None:
    (host.jobs["algo-1"].paths.config / f"{file}.json").write_text(content, "utf-8")
    host.start(stand_in("    raise ValueError('started')"))
    code, output = host.end("algo-1")
    assert (code, output) == (1, host.jobs["algo-1"].failure)
    assert reason in output


def test_a_folder_that_cannot_be_written_is_refused_before_anything_starts(host: Cluster, tmp_path: Path) -> None:
    (tmp_path / "algo-1" / "checkpoints").write_text("no folder", "utf-8")
    host.start(stand_in("    raise ValueError('started')"))
    assert host.failure("algo-1") == f"The folder {tmp_path}/algo-1/checkpoints cannot be made: File exists.\n"


def test_the_first_cause_is_the_reason_and_not_a_complaint_that_came_earlier(tmp_path: Path) -> None:
    assert first_failure(tmp_path) is None
    for place, lost_peer, seconds in (("complaint", True, 1), ("later", False, 3), ("cause", False, 2)):
        (tmp_path / place).mkdir()
        failure = {"message": place, "lost_peer": lost_peer, "timestamp": seconds}
        (tmp_path / place / "error.json").write_text(json.dumps(failure), "utf-8")
    first = first_failure(tmp_path)
    assert first
    assert first.message == "cause"
