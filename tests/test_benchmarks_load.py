"""What the load generator makes of answers; the load itself is asked of a small server on loopback."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.lib import load
from benchmarks.lib.answers import best
from benchmarks.lib.load import Plan, Reply, judge, percentile
from benchmarks.lib.photographs import bodies, files

PLAN = Plan(port=1, path="/x", photos="", connections=1, warm=1.0, seconds=2.0, outputs=2, classes=2)


def answer(*odds: Any) -> bytes:
    return json.dumps({"classes": ["cat", "dog"], "probabilities": list(odds)}).encode()


def reply(ended: float, body: bytes = answer(0.9, 0.1), status: int = 200, picture: int = 0) -> Reply:
    return Reply(picture, ended - 0.5, ended, status, body)


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.95, 10), (0.99, 10), (0.1, 1), (0.11, 2), (0.0, 1)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share: float, value: float) -> None:
    assert percentile(range(1, 11), share) == value


def test_an_answer_names_its_likeliest_class() -> None:
    assert best(answer(0.1, 0.9), 2, 2) == "dog"
    assert best(b'{"cat": 0.3, "dog": 0.2}', 2, 133) == "cat"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (answer(0.6, 0.6), "sum to 1.2"),
        (answer(0.3, 0.3), "sum to 0.6"),
        (answer(1.5, -0.5), "not 2 probabilities"),
        (answer(0.5, "0.5"), "not 2 probabilities"),
        (answer(1.0), "longer|shorter"),
        (b'{"cat": 1.0}', "not 2 probabilities"),
        (b"[0.5, 0.5]", "no object"),
        (b"<html>", "Expecting"),
    ],
)
def test_what_is_no_answer_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        best(body, 2, 2)


def test_only_answers_within_the_counted_seconds_make_the_rate() -> None:
    found = judge(PLAN, [reply(0.9), reply(1.0), reply(1.2), reply(3.0), reply(3.1)], ["a.jpg"], since=1.0)
    assert (found["answers"], found["rate"], found["p99_ms"]) == (3, 1.5, pytest.approx(500))


def test_errors_and_wrong_answers_count_whenever_they_come_and_never_as_answers() -> None:
    replies = [reply(0.5, b"", 0), reply(1.5, b"busy", 503), reply(1.5), reply(1.6, answer(0.1, 0.9)), reply(9, b"{}")]
    found = judge(PLAN, replies, ["a.jpg"], since=1.0)
    assert (found["errors"], found["wrong"], found["answers"]) == (2, 2, 1)
    assert found["best"] == {"a.jpg": "cat"}


def test_another_picture_may_have_another_class() -> None:
    replies = [reply(1.5), reply(1.6, answer(0.1, 0.9), picture=1)]
    found = judge(PLAN, replies, ["a.jpg", "b.jpg"], since=1.0)
    assert (found["wrong"], found["best"]) == (0, {"a.jpg": "cat", "b.jpg": "dog"})


def test_without_any_answer_there_are_no_times() -> None:
    found = judge(PLAN, [reply(1.5, b"no", 500)], ["a.jpg"], since=1.0)
    assert (found["rate"], found["p50_ms"], found["first_error"]) == (0.0, None, "no")


class _Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    callers: set[Any]

    def do_POST(self) -> None:
        self.callers.add(self.client_address)
        first = self.rfile.read(int(self.headers["Content-Length"])).startswith(b"\x89PNG")
        body = answer(0.9, 0.1) if first else answer(0.1, 0.9)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    _Server.callers = set()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_each_connection_is_kept_and_sends_whole_pictures(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    load.main(Plan(port, "/x", str(tmp_path), connections=3, warm=0.1, seconds=0.3, outputs=2, classes=2))
    found = json.loads(capsys.readouterr().out)
    assert (found["errors"], found["wrong"], found["best"]) == (0, 0, {"a.png": "cat", "b.jpg": "dog"})
    assert found["answers"] > 3
    assert len(_Server.callers) == 3
    assert 0 < found["load_cpu"] <= 1


def test_a_server_that_is_gone_makes_errors_and_no_endless_asking(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    load.main(Plan(1, "/x", str(tmp_path), connections=2, warm=0.0, seconds=0.3, outputs=2, classes=2))
    found = json.loads(capsys.readouterr().out)
    assert 2 <= found["errors"] <= 8
    assert "Connection" in found["first_error"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(SystemExit, match="--photos must name a folder"):
        bodies(tmp_path / "out", tmp_path)


def test_pictures_are_sent_as_they_are(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.PNG")
    [copy] = files(bodies(tmp_path / "out", tmp_path))
    assert copy.read_bytes() == (tmp_path / "a.PNG").read_bytes()
