"""A log that cannot be written, to the last line: answers do not depend on it."""

import fcntl
import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest

from kennel.rehearsal.containers.local import free_port
from tests.inference.tiny import Server, environment, picture, until

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save

_ROOT = Path(__file__).parents[2]


@contextmanager
def logging_to(output: int, opt_ml: Path) -> Iterator[Server]:
    """The server with its standard output at a file descriptor."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "inference", "serve"],
        env=environment(opt_ml, SAGEMAKER_BIND_TO_PORT=str(port)),
        cwd=_ROOT,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until(lambda: listens(port))
        yield Server(process, port)
    finally:
        process.kill()
        process.communicate()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_full_disk_for_the_log_costs_no_answer(opt_ml: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with logging_to(full, opt_ml) as server:
        assert [server.classify(picture()).status for _ in range(3)] == [200] * 3
        server.process.terminate()
        assert server.process.communicate(timeout=20)[1] == ""
        assert server.process.returncode == 0
    os.close(full)


def test_a_log_that_nobody_reads_any_more_costs_no_answer(opt_ml: Path) -> None:
    reader, writer = os.pipe()
    with logging_to(writer, opt_ml) as server:
        os.close(writer)
        os.close(reader)
        assert [server.classify(picture()).status for _ in range(3)] == [200] * 3
        server.process.terminate()
        assert server.process.communicate(timeout=20)[1] == ""
        assert server.process.returncode == 0


def test_a_log_that_is_not_taken_costs_no_answer_and_later_says_how_much_of_it_is_lost(opt_ml: Path) -> None:
    reader, writer = os.pipe()
    with logging_to(writer, opt_ml) as server, os.fdopen(reader) as log:
        os.close(writer)
        asked = 2000  # some 400 lines fill the pipe, 1000 more the server's own room
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for number in range(asked):
            connection.request("GET", f"/{number}")
            assert connection.getresponse().read()
        connection.close()
        assert server.ask("GET", "/ping").status == 200
        events = [json.loads(line) for line in taken(log, server)]
    requests = [facts for facts in events if facts["event"] == "request"]
    lost = [facts["lines"] for facts in events if facts["event"] == "log_lines_lost"]
    assert requests[0]["path"] == "/0"
    assert len(lost) == 1 < lost[0]
    assert len(requests) + lost[0] == asked


def taken(log: TextIO, server: Server) -> list[str]:
    """All lines until the server has ended."""
    server.process.terminate()
    lines = log.readlines()
    assert server.process.wait(timeout=20) == 0
    return lines


def test_a_log_that_is_never_taken_does_not_hold_up_the_exit(opt_ml: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with logging_to(writer, opt_ml) as server:
        for _ in range(60):
            server.ask("GET", "/nothing")
        server.process.terminate()
        assert server.process.wait(timeout=20) == 0
    os.close(writer)
    os.close(reader)
