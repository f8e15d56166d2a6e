"""What breaks around the server: the real process, real sockets, real limits of the kernel.

Further faults: broken artifacts in test_server_life.py and test_artifact.py, slow and silent bodies in
test_server_limits.py, half requests and garbage in test_server_answers.py.
"""

import http.client
import resource
import signal
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.inference.tiny import Server, answer_on, ask, picture, until, upload

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save

Launch = Callable[..., Server]
_RESET_AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


def memory_kib(server: Server, line: str) -> int:
    """`line` of the process's status, such as VmSize or VmRSS."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(text.split()[1] for text in status.splitlines() if text.startswith(line + ":")))


@pytest.fixture
def many_files() -> Iterator[int]:
    """The most files that this process may open, which it may now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_picture_for_which_there_is_no_memory_is_413_and_the_next_is_answered(launch: Launch) -> None:
    server = launch()
    room = 1024 * (memory_kib(server, "VmSize") + 60_000)
    resource.prlimit(server.process.pid, resource.RLIMIT_AS, (room, room))
    answer = server.classify(picture("PNG", "white", (7000, 7000)))  # 147 MB as RGB
    assert (answer.status, answer.code) == (413, "too_large")
    assert "more memory than there is" in answer.json["error"]["message"]
    assert server.classify(picture()).status == 200
    assert server.ask("GET", "/ping").status == 200


def test_ten_thousand_connections_that_say_nothing_keep_nobody_waiting(many_files: int, launch: Launch) -> None:
    silent = 10_000
    if many_files < silent + 500:
        pytest.skip(f"this machine lets a process open {many_files} files only")
    server = launch()
    before = memory_kib(server, "VmRSS")
    with ExitStack() as connections:
        for _ in range(silent):
            connections.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        began = time.monotonic()
        assert server.classify(picture()).status == 200
        assert server.ask("GET", "/ping").status == 200
        assert time.monotonic() - began < 5
        assert memory_kib(server, "VmRSS") - before < 200_000  # 20 kB each at most
    assert server.stop()[0] == 0


def test_a_server_without_a_free_file_answers_again_as_soon_as_there_is_one(launch: Launch) -> None:
    server = launch()
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (64, 64))
    with ExitStack() as connections:
        for _ in range(80):
            connections.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
        with pytest.raises(TimeoutError), socket.create_connection(("127.0.0.1", server.port), timeout=1) as waiting:
            waiting.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            waiting.recv(1)
    assert server.classify(picture()).status == 200
    errors = [line for line in server.stop()[1] if line["level"] == "error"]
    assert "Too many open files" in errors[0]["exception"]  # the log says why it did not answer


def test_uploads_that_break_off_leave_room_for_others(launch: Launch) -> None:
    server, body = launch(), picture()
    for part in (0, 1, 100, len(body) - 1) * 25:  # more than may be read at a time
        with upload(server.port, body, part) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_ONCE)
    began = time.monotonic()
    until(lambda: server.classify(body).status == 200)
    assert time.monotonic() - began < 10  # half of what a body is waited for


def test_slow_uploads_do_not_hold_up_a_fast_one(launch: Launch) -> None:
    server, body = launch(), picture()
    with ExitStack() as connections:
        slow = [connections.enter_context(upload(server.port, body, 100)) for _ in range(60)]
        began = time.monotonic()
        assert server.classify(body).status == 200
        assert time.monotonic() - began < 5
        for connection in slow:
            connection.sendall(body[100:])
        assert {answer_on(connection).status for connection in slow} <= {200, 429}


def test_an_answer_on_a_kept_connection_waits_for_no_acknowledgement(launch: Launch) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", launch().port, timeout=30)
    taken = []
    for _ in range(30):
        began = time.monotonic()
        connection.request("POST", "/invocations", picture())
        assert connection.getresponse().read()
        taken.append(time.monotonic() - began)
    connection.close()
    assert statistics.median(taken) < 0.03  # callers acknowledge after 40 ms where they have nothing else to send


def test_a_server_killed_under_load_gives_no_wrong_answer_and_leaves_its_port_to_the_next(launch: Launch) -> None:
    server = launch()
    ended, answers, broken = threading.Event(), list[tuple[int, list[float]]](), list[type[Exception]]()

    def call() -> None:
        while not ended.is_set():
            try:
                answer = ask(server.port, "POST", "/invocations", picture())
                answers.append((answer.status, answer.json["probabilities"]))
            except (OSError, http.client.HTTPException) as error:
                broken.append(type(error))
                time.sleep(0.02)

    with ThreadPoolExecutor(6) as callers:
        calls = [callers.submit(call) for _ in range(6)]
        try:
            until(lambda: len(answers) >= 20)
            server.process.send_signal(signal.SIGKILL)
            until(lambda: len(broken) >= 6)
            before = len(answers)
            launch(SAGEMAKER_BIND_TO_PORT=str(server.port))
            until(lambda: len(answers) > before)
        finally:
            ended.set()
        for one in calls:
            one.result()
    assert [answer for answer in answers if answer != answers[0]] == []
    assert answers[0][0] == 200
