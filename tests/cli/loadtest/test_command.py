"""`kennel loadtest` from the command line to the file that decides how the endpoint scales."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kennel.cli import app
from kennel.errors import KennelError
from kennel.loadtest import command
from kennel.loadtest.load import Load
from kennel.loadtest.subject import Subject
from stacks.hosting.scaling import FILE, read_capacity
from tests.contracts import validate

MODEL = {"architecture": "resnet50", "image_size": 224}


def load(rate: float, **changes: Any) -> Load:
    plain = {"held": True, "requests": 100, "failed": 0, "p50_ms": 10.04, "p95_ms": 20.0, "p99_ms": 30.0}
    figures: dict[str, Any] = plain | {"concurrency": rate / 50, "concurrency_peak": rate / 10, "late_ms": 0.3}
    return Load(rate, **(figures | changes))


def subject(**changes: Any) -> Subject:
    known: dict[str, Any] = {"instance_type": "ml.m5.large", "machine": "m", "model": MODEL, "runtime": "openvino"}
    return Subject(**(known | {"precision": "int8"} | changes))


def entry(**changes: Any) -> dict[str, Any]:
    return command.capacity_entry(subject(**changes), [load(20.0), load(100.0)], 500.0, 8)


def test_what_is_written_is_an_instances_share_with_machine_model_target_and_date() -> None:
    written = entry(instances=4)
    assert (written["requests_per_second"], written["concurrency"], written["concurrency_peak"]) == (25.0, 0.5, 2.5)
    assert [one["requests_per_second"] for one in written["loads"]] == [5.0, 25.0]
    assert written["loads"][0]["p50_ms"] == 10.0
    assert (written["instance_type"], written["instances"], written["model"]) == ("ml.m5.large", 4, MODEL)
    assert (written["target_p99_ms"], written["precision"], written["photos"]) == (500.0, "int8", 8)
    assert written["date"] == datetime.now(UTC).date().isoformat()


def test_synth_reads_what_the_command_writes(tmp_path: Path) -> None:
    command.write_capacity(tmp_path / "c.json", entry())
    found = read_capacity("ml.m5.large", tmp_path / "c.json")
    assert found is not None
    assert [(each.rate, each.peak) for each in found.loads] == [(20.0, 2.0), (100.0, 10.0)]
    assert (found.architecture, found.image_size) == ("resnet50", 224)
    assert (found.instance_type, found.runtime, found.precision) == ("ml.m5.large", "openvino", "int8")


@pytest.mark.parametrize("known", [subject(), subject(instance_type="", instances=1), subject(precision="auto")])
def test_what_is_written_fits_the_contract(known: Subject, tmp_path: Path) -> None:
    command.write_capacity(tmp_path / "c.json", command.capacity_entry(known, [load(20.0), load(100.0)], 500.0, 8))
    validate("capacity", json.loads((tmp_path / "c.json").read_text()))


def test_the_committed_measurements_fit_the_contract() -> None:
    validate("capacity", json.loads(FILE.read_text()))


def test_a_new_measurement_takes_the_place_of_the_same_types_and_leaves_the_others(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    for measured in (entry(machine="old"), entry(instance_type=""), entry(machine="new")):
        command.write_capacity(file, measured)
    written = json.loads(file.read_text())
    assert list(written["measured"]) == ["", "ml.m5.large"]
    assert written["measured"]["ml.m5.large"]["machine"] == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["c.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"measured": 3}', "no json"])
def test_a_file_of_something_else_is_refused_before_minutes_of_measuring(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(KennelError, match=r"exists and is no file of `kennel loadtest`.*name another"):
        command.Request(tmp_path, "", 500, 20, (), tmp_path / "c.json")
    assert (tmp_path / "c.json").read_text() == text


def test_a_folder_that_is_not_there_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(KennelError, match=r"the folder .*gone does not exist"):
        command.Request(tmp_path, "", 500, 20, (), tmp_path / "gone" / "c.json")


@pytest.mark.parametrize("arguments", [[], ["model.tar.gz", "--stage", "Dev"]])
def test_exactly_one_thing_is_measured(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["loadtest", *arguments])
    assert done.exit_code == 1
    assert "Name what to measure: a model.tar.gz (or its folder), or a deployed stage with --stage." in done.output


class _Handler(BaseHTTPRequestHandler):
    """Refuses a request that comes while three are in work; each takes 20 ms."""

    protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
    places = threading.Semaphore(3)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        free = self.places.acquire(blocking=False)
        if free:
            threading.Event().wait(0.02)
            self.places.release()
        self.send_response(200 if free else 429)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None: ...


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 128

    def handle_error(self, *arguments: object) -> None: ...


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the place of the inference server, and with short warm-ups."""
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()

    @contextmanager
    def here(artifact: Path, folder: Path) -> Iterator[Subject]:
        yield subject(instance_type="", url=f"http://127.0.0.1:{server.server_port}/invocations")

    monkeypatch.setattr(command, "local", here)
    monkeypatch.setattr(command, "_WARM", 0.2)
    monkeypatch.setattr(command, "_PROBE", (10.0, 0.5))
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_the_command_finds_a_rate_below_the_first_refusal_prints_json_alone_and_writes_the_file(
    served: None, tmp_path: Path
) -> None:
    file = tmp_path / "c.json"
    done = CliRunner().invoke(app, ["loadtest", "any", "--seconds", "1", "--p99", "400", "--out", str(file), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert json.loads(file.read_text())["measured"][""] == said
    assert 1 < said["requests_per_second"] < 150  # three places of 20 ms each
    assert 0 < said["concurrency"] <= said["concurrency_peak"]
    assert "Confirm" in done.stderr
    assert ": held" in done.stderr


def test_load_that_leaves_late_is_said_to_be_doubtful(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    late = command.capacity_entry(subject(), [load(100.0, late_ms=51.0)], 500.0, 8)
    command.show(late, tmp_path / "c.json")
    told = capsys.readouterr().out
    assert "Doubtful: requests left up to 51 ms late." in told
    assert f"Written to {tmp_path / 'c.json'}." in told
    command.show(entry(), None)
    told = capsys.readouterr().out
    assert told.startswith("100 requests a second on m\n  resnet50 with openvino in int8, p50 10 ms, p99 30 ms")
    assert told.endswith("Written nowhere: --out stacks/capacity.json makes it the scaling's.\n")
    assert "Doubtful" not in told
