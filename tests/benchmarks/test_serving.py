"""The serving benchmark: servers that are started and ended, answers that are judged, and the ratios that follow."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest
from PIL import Image

from benchmarks.lib import processes, servers_compared
from benchmarks.lib.photographs import files, photographs
from benchmarks.lib.processes import NotServed, Server, running
from benchmarks.lib.servers_compared import CLASSES, best_class
from benchmarks.lib.serving_programs import Answer, Settings, closed_loop_load, judge
from benchmarks.serving import medians, summary

_SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from subprocess import Popen

class Handler(BaseHTTPRequestHandler):
    requests = 0
    def do_POST(self):
        Handler.requests += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b"ready" if Handler.requests > 2 else b"loading"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

child = Popen(["sleep", "600"])
print(json.dumps({"child": child.pid, "precision": os.environ["PRECISION"]}), flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def started(*command: str) -> Server:
    return Server([sys.executable, "-c", *command], {"PRECISION": "bf16"}, "/")


def ready(body: bytes) -> None:
    if body != b"ready":
        raise ValueError("not yet")


def test_a_server_has_started_with_its_first_right_answer_and_ends_with_its_children(tmp_path: Path) -> None:
    with running(started(_SERVER, "{port}"), tmp_path / "run", b"picture", ready) as here:
        assert here.logged("precision") == "bf16"
        assert here.logged("nothing") is None
        child = psutil.Process(int(here.logged("child") or 0))
        assert {process.pid for process in processes.process_tree(here.pid)} == {here.pid, child.pid}
        assert processes.memory_mib(here.pid) > 1
        assert processes.cpu_seconds(here.pid) > 0
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_ends_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    fails = started("import sys; sys.exit('no model')")
    with pytest.raises(NotServed, match="no model"), running(fails, tmp_path / "run", b"", ready):
        pass


def test_memory_of_a_process_that_is_gone_is_nothing() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    assert processes.memory_mib(done.pid) == 0


def answer(best: str = "breed-000", share: Any = 0.9, classes: list[str] = CLASSES) -> bytes:
    shares = {name: 0.1 / 132 for name in classes} | {best: share}
    return json.dumps({"classes": [*shares], "probabilities": [*shares.values()]}).encode()


def test_an_answer_names_its_likeliest_class() -> None:
    assert best_class(answer("breed-007")) == "breed-007"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (answer(share=0.99), "sum to 1.09"),
        (answer(share=1.5), "something else than probabilities"),
        (answer(share="0.9"), "something else than probabilities"),
        (answer(classes=CLASSES[:-1]), "has not the classes"),
        (json.dumps({"classes": CLASSES, "probabilities": [1.0]}).encode(), "longer|shorter"),
        (b"[0.5, 0.5]", "has not the classes"),
        (b"<html>", "Expecting"),
    ],
)
def test_what_is_no_answer_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        best_class(body)


def reply(ended: float, body: bytes = answer(), status: int = 200, picture: int = 0) -> Answer:
    return Answer(picture, ended - 0.5, ended, status, body)


def test_only_answers_within_the_counted_seconds_make_the_rate() -> None:
    found = judge([reply(0.9), reply(1.0), reply(1.2), reply(3.0), reply(3.1)], ["a.jpg"], since=1.0, seconds=2.0)
    assert (found["answers"], found["rate"], found["p99_ms"]) == (3, 1.5, pytest.approx(500))


def test_errors_and_wrong_answers_count_whenever_they_come_and_never_as_answers() -> None:
    other = answer("breed-001")
    replies = [reply(0.5, b"", 0), reply(1.5, b"busy", 503), reply(1.5), reply(1.6, other), reply(9, b"{}")]
    found = judge([*replies, reply(1.7, other, picture=1)], ["a.jpg", "b.jpg"], since=1.0, seconds=2.0)
    assert (found["errors"], found["wrong"], found["answers"]) == (2, 2, 2)
    assert found["best"] == {"a.jpg": "breed-000", "b.jpg": "breed-001"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received: set[tuple[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.add((self.headers["Content-Type"], body))
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer())))
        self.end_headers()
        self.wfile.write(answer())

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    _Handler.received = set()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        Thread(target=server.serve_forever, args=(0.02,)).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/invocations"
        server.shutdown()


@pytest.mark.parametrize("field", ["", "image_data"])
def test_each_connection_sends_every_picture_as_the_server_wants_it(url: str, field: str, tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        Image.new("RGB", (8, 8), colour).save(tmp_path / f"{colour}.PNG")
    sent = photographs(tmp_path / "sent", tmp_path)
    found = closed_loop_load(Settings(url, str(sent), connections=2, warm=0.0, seconds=0.5, json_field=field))
    assert (found["errors"], found["wrong"]) == (0, 0)
    kind = "application/json" if field else "application/octet-stream"
    assert _Handler.received == {(kind, processes.body_of(file.read_bytes(), field)) for file in files(tmp_path)}


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(SystemExit, match="--photos must name a folder"):
        photographs(tmp_path / "out", tmp_path)


def server(rate: float, *, bound: float = 0.0, p99: float = 20.0) -> dict[str, Any]:
    loads = {connections: {"rate": rate, "p50_ms": 10.0, "p99_ms": p99} for connections in ("1", "4", "16")}
    return {"first_answer_seconds": 0.5, "loads": loads, "bound": {"rate": bound}}


def test_the_ratio_is_over_the_best_load_of_the_best_peer_and_of_several_precisions_the_worst_is_told() -> None:
    litserve = server(15.0)
    litserve["loads"]["16"]["rate"] = 20.0
    ours = {"Kennel, f32": server(30.0, bound=60.0), "Kennel, int8": server(180.0, bound=200.0, p99=40.0)}
    ours["Kennel, bf16"] = {"why": "not offered"}
    found = summary(ours | {"FastAPI, f32": server(12.0), "LitServe, f32": litserve})
    assert found["ratio_best_peer"] == {"f32": 1.5, "bf16": None, "int8": 9.0}
    assert (found["ratio_best_peer_int8"], found["bound_fraction"], found["p99_over_p50"]) == (9.0, 0.5, 4.0)
    assert found["bound_fraction_of"] == {"f32": 0.5, "int8": 0.9}
    alone = summary(ours | {name: {"why": "not installed"} for name in servers_compared.PEERS})
    assert (alone["ratio_best_peer_int8"], alone["bound_fraction"]) == (None, 0.5)


def test_of_several_rounds_the_median_counts_and_no_error_is_lost() -> None:
    rounds: list[dict[str, Any]] = [
        {"a": {"rate": rate, "errors": errors, "agreement": None}, "b": {"why": "not offered"}}
        for rate, errors in ((5.0, 0), (9.0, 2), (6.0, 1))
    ]
    rounds[1]["b"] = {"rate": 7.0, "errors": 0}
    expected = {"a": {"rate": 6.0, "errors": 3, "agreement": None}, "b": {"rate": 7.0, "errors": 0}}
    assert medians(rounds) == expected
    assert medians([{"b": {"why": "not offered"}}] * 3) == {"b": {"why": "not offered"}}


def test_the_size_of_the_image_is_that_of_the_packages_that_its_requirements_list() -> None:
    assert 100 < servers_compared.kennel_megabytes() < 250
