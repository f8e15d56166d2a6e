"""What the benchmarks start: packages as Lambda would unpack them, servers that are ended, sizes that are counted."""

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.lib import assets, installed, process_tree
from benchmarks.lib.servers import NotServed, Server, running

ROOT = Path(__file__).parents[1]

_SERVER = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from subprocess import Popen

class Handler(BaseHTTPRequestHandler):
    asked = 0
    def do_POST(self):
        Handler.asked += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"cat": 0.9, "dog": 0.1}' if Handler.asked > 2 else b'{"loading": 1.0}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

child = Popen(["sleep", "60"])
print(json.dumps({"child": child.pid, "precision": os.environ["PRECISION"]}), flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def serve(*command: str) -> Server:
    return Server("a server", [sys.executable, "-c", *command], {"PRECISION": "bf16"}, "/", 2)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_a_server_has_started_with_its_first_right_answer_and_ends_with_its_children(tmp_path: Path) -> None:
    with running(serve(_SERVER, "{port}"), tmp_path / "run", b"picture", 2) as here:
        assert here.said("precision") == "bf16"
        assert here.said("nothing") is None
        child = int(here.said("child") or 0)
        assert alive(child)
        assert 0 < here.first_answer < 30
        assert {process.pid for process in process_tree.processes(here.pid)} == {here.pid, child}
        assert process_tree.memory_mib(here.pid) > 1
        assert process_tree.cpu_seconds(here.pid) > 0
    end = time.monotonic() + 5
    while alive(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive(child)


def test_a_server_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with (
        pytest.raises(NotServed, match="no model"),
        running(serve("import sys; sys.exit('no model')"), tmp_path / "run", b"", 2),
    ):
        pass


def test_memory_of_a_process_that_is_gone_is_nothing() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    assert process_tree.memory_mib(done.pid) == 0


@pytest.fixture
def asset(tmp_path: Path) -> Path:
    package = tmp_path / "asset" / "classify"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "handler.py").write_text("def handler(event, context):\n    return {'label': event}\n")
    return package.parent


def test_compiled_files_are_used_whatever_time_the_sources_have(asset: Path, tmp_path: Path) -> None:
    compiled = assets.compiled(asset, tmp_path / "compiled")
    assert assets.is_compiled(compiled)
    (compiled / "classify" / "handler.py").write_text("raise SystemExit('the source was read')")
    code = "from classify.handler import handler; print(handler('cat', None)['label'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=compiled, capture_output=True, text=True, check=True)
    assert done.stdout == "cat\n"


def test_a_copy_of_sources_has_no_compiled_files_and_is_smaller(asset: Path, tmp_path: Path) -> None:
    compiled = assets.compiled(asset, tmp_path / "compiled")
    source = assets.source_only(compiled, tmp_path / "source")
    assert not assets.is_compiled(source)
    assert 0 < assets.kilobytes(source) < assets.kilobytes(compiled)


def test_the_measured_function_answers_as_before_and_tells_its_times_in_order(asset: Path, tmp_path: Path) -> None:
    measured = assets.measured(asset, tmp_path / "measured")
    code = "import json, measured; print(json.dumps(measured.handler('cat', None)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=measured, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    clock = answer.pop("clock")
    assert answer == {"label": "cat"}
    assert clock["client"] == 0
    assert clock["begun"] <= clock["imported"] <= clock["called"] <= clock["answered"]


def test_the_stub_endpoint_wants_a_signature_and_tells_how_long_each_call_took() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.lib.stub_endpoint"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as stub:
        assert stub.stdin and stub.stdout
        connection = http.client.HTTPConnection("127.0.0.1", int(stub.stdout.readline()), timeout=10)
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c", "X-Amz-Date": "d"}
        answers = []
        for headers in ({"X-Amz-Date": "d"}, signed):
            connection.request("POST", "/endpoints/kennel-dev/invocations", b"picture", headers)
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read())))
        connection.request("GET", "/times")
        [milliseconds] = json.loads(connection.getresponse().read())
        connection.close()
        stub.stdin.close()
    assert [status for status, _ in answers] == [403, 200]
    assert len(answers[1][1]["classes"]) == 133
    assert sum(answers[1][1]["probabilities"]) == pytest.approx(1)
    assert 0 < milliseconds < 1000


def test_the_size_of_packages_is_that_of_their_files() -> None:
    import starlette

    on_disk = sum(file.stat().st_size for file in Path(str(starlette.__file__)).parent.rglob("*.py")) / 1e6
    assert on_disk <= installed.megabytes(["starlette"]) < 3 * on_disk + 0.1
    assert installed.megabytes(["starlette", "anyio"]) > installed.megabytes(["starlette"])


def test_packages_bring_what_they_ask_for_but_no_extras_and_nothing_of_cuda() -> None:
    found = installed.with_dependencies(["Starlette", "no-such-package"])
    assert {"starlette", "anyio", "idna"} <= set(found)
    assert "jinja2" not in found


def test_the_image_installs_what_its_requirements_list() -> None:
    names = installed.listed(ROOT / "inference" / "requirements.txt")
    assert {"openvino", "starlette", "uvicorn"} <= set(names)
    assert not any(mark in name for name in names for mark in "=# ")
