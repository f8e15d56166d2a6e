"""A container sees its own disk, name, processes and network, and always ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kennel.rehearsal.containers.engine import Container, ContainerEngine, ContainerError
from kennel.rehearsal.containers.local import NamespaceEngine, ProcessEngine

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save


def _engines() -> list[object]:
    return [
        pytest.param(lambda: NamespaceEngine(), id="namespaces"),
        pytest.param(lambda: NamespaceEngine(user=True), id="user-namespaces"),
        pytest.param(ProcessEngine, id="processes"),
    ]


@pytest.fixture(params=_engines())
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> ContainerEngine:
    chosen: ContainerEngine = request.param()
    if isinstance(chosen, NamespaceEngine) and not chosen.works(tmp_path / "probe"):
        pytest.skip("this machine refuses private namespaces")
    return chosen


@pytest.fixture
def isolated(engine: ContainerEngine) -> ContainerEngine:
    if engine.name == "processes":
        pytest.skip("bare processes share the machine's network, disk and name")
    return engine


def _run(engine: ContainerEngine, root: Path, script: str, **more: object) -> tuple[int | None, list[str]]:
    lines: list[str] = []
    root.mkdir(exist_ok=True)
    with engine.network() as network:
        container = Container(
            program="training",
            root=root,
            entrypoint=["python3", "-c", script],
            network=network,
            on_line=lines.append,
            **more,  # type: ignore[arg-type]
        )
        return engine.start(container).wait(60), lines


def test_a_container_runs_the_source_of_its_own_image(engine: ContainerEngine, tmp_path: Path) -> None:
    for tag in ("1", "2"):
        context = tmp_path / tag / "context"
        context.mkdir(parents=True)
        (context / "__main__.py").write_text(f"print('the source of image {tag}')")
        engine.build(tag, context)
    (tmp_path / "ml").mkdir()
    for tag in ("1", "2", "1"):
        lines: list[str] = []
        container = Container(
            program="training", root=tmp_path / "ml", image=f"registry/training:{tag}", on_line=lines.append
        )
        assert engine.start(container).wait(60) == 0
        assert lines == [f"the source of image {tag}"]
    with pytest.raises(ContainerError, match=r"There is no image 'registry/training:3'\."):
        engine.start(Container(program="training", root=tmp_path / "ml", image="registry/training:3"))


def test_the_program_writes_below_opt_ml_or_where_opt_ml_says(engine: ContainerEngine, tmp_path: Path) -> None:
    script = "import os, pathlib; pathlib.Path(os.environ.get('OPT_ML', '/opt/ml'), 'made').write_text('here')"
    code, _ = _run(engine, tmp_path / "ml", script)
    assert code == 0
    assert (tmp_path / "ml" / "made").read_text() == "here"


def test_the_machine_keeps_no_trace_of_opt_ml(isolated: ContainerEngine, tmp_path: Path) -> None:
    before = sorted(Path("/opt").iterdir())
    code, lines = _run(isolated, tmp_path / "ml", "import os; print(*sorted(os.listdir('/opt')))")
    assert code == 0
    assert set(lines[0].split()) == {path.name for path in before} | {"ml"}
    assert sorted(Path("/opt").iterdir()) == before


def test_a_host_has_its_name_and_knows_the_others(isolated: ContainerEngine, tmp_path: Path) -> None:
    script = "import socket; print(socket.gethostname()); print(socket.gethostbyname('algo-1'))"
    _, lines = _run(isolated, tmp_path / "ml", script, host="algo-2", hosts=["algo-1", "algo-2"])
    assert lines == ["algo-2", "127.0.0.1"]


def test_a_job_cannot_reach_a_port_of_this_machine(isolated: ContainerEngine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        code, lines = _run(isolated, tmp_path / "ml", script)
    assert code == 1
    assert lines[-1].startswith("ConnectionRefusedError")


def test_two_hosts_of_a_job_reach_each_other(engine: ContainerEngine, tmp_path: Path) -> None:
    serve = (
        "import os, socket; s = socket.create_server(('127.0.0.1', int(os.environ.get('MASTER_PORT', 29500))));"
        "print('up', flush=True); c, _ = s.accept(); print(c.recv(9).decode())"
    )
    call = (
        "import os, socket; host = os.environ.get('MASTER_ADDR', 'algo-1');"
        "socket.create_connection((host, int(os.environ.get('MASTER_PORT', 29500)))).sendall(b'hello')"
    )
    lines: list[str] = []
    with engine.network() as network:
        running = []
        for host, script in (("algo-1", serve), ("algo-2", call)):
            (tmp_path / host).mkdir()
            container = Container(
                program="training",
                root=tmp_path / host,
                entrypoint=["python3", "-c", script],
                network=network,
                host=host,
                hosts=["algo-1", "algo-2"],
                on_line=lines.append,
            )
            running.append(engine.start(container))
            _until(lambda: "up" in lines)
        assert [process.wait(60) for process in running] == [0, 0]
    assert lines == ["up", "hello"]


def test_nothing_of_this_process_environment_reaches_the_program(
    engine: ContainerEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the operator's own")
    script = "import os; print('AWS_SECRET_ACCESS_KEY' in os.environ, os.environ['GIVEN'])"
    _, lines = _run(engine, tmp_path / "ml", script, environment={"GIVEN": "yes"})
    assert lines == ["False yes"]


def test_sigterm_reaches_the_program_and_its_exit_code_comes_back(engine: ContainerEngine, tmp_path: Path) -> None:
    script = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *a: sys.exit(143));"
        "print('ready', flush=True); time.sleep(600)"
    )
    lines: list[str] = []
    process = engine.start(_container(tmp_path / "ml", script, lines.append))
    _until(lambda: lines == ["ready"])
    assert process.stop(grace=60) == 143


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace(engine: ContainerEngine, tmp_path: Path) -> None:
    script = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);print('ready', flush=True); time.sleep(600)"
    )
    lines: list[str] = []
    process = engine.start(_container(tmp_path / "ml", script, lines.append))
    _until(lambda: lines == ["ready"])
    assert process.stop(grace=0.3) == 128 + signal.SIGKILL


def test_killing_takes_the_grandchildren_along(engine: ContainerEngine, tmp_path: Path) -> None:
    mark = f"{tmp_path.name}-{engine.name}"
    script = (
        "import subprocess, sys, time;"
        f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', ''.join({[*mark]})]);"
        "print('x', flush=True); time.sleep(600)"
    )
    lines: list[str] = []
    process = engine.start(_container(tmp_path / "ml", script, lines.append))
    _until(lambda: lines == ["x"] and bool(_processes(mark)))
    process.kill()
    _until(lambda: not _processes(mark))


def test_when_this_process_is_killed_everything_ends(engine: ContainerEngine, tmp_path: Path) -> None:
    mark = f"orphan-{tmp_path.name}-{engine.name}"
    user = bool(getattr(engine, "_user", 0))
    made = f"NamespaceEngine(user={user})" if isinstance(engine, NamespaceEngine) else "ProcessEngine()"
    parent = f"""
import pathlib, time
from kennel.rehearsal.containers.engine import Container
from kennel.rehearsal.containers.local import NamespaceEngine, ProcessEngine
root = pathlib.Path({str(tmp_path / "ml")!r}); root.mkdir()
entrypoint = ["python3", "-c", "import time; time.sleep(600)", {mark!r}]
with {made}.network() as network:
    {made}.start(Container(program="training", root=root, entrypoint=entrypoint, network=network))
    print("started", flush=True)
    time.sleep(600)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    with subprocess.Popen([sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE) as child:
        assert child.stdout and child.stdout.readline() == b"started\n"
        _until(lambda: bool(_processes(mark)))
        child.send_signal(signal.SIGKILL)
    _until(lambda: not _processes(mark))


def test_a_program_that_does_not_exist_says_so(engine: ContainerEngine, tmp_path: Path) -> None:
    (tmp_path / "ml").mkdir()
    process = engine.start(Container(program="training", root=tmp_path / "ml", entrypoint=["no-such-program"]))
    assert process.wait(60) == 126
    assert "Cannot start no-such-program" in process.log


def test_output_that_is_no_text_and_has_no_end_of_line_is_still_read(engine: ContainerEngine, tmp_path: Path) -> None:
    code, lines = _run(engine, tmp_path / "ml", "import sys; sys.stdout.buffer.write(b'\\xff' + b'a' * 200_000)")
    assert code == 0
    assert "".join(lines) == "\ufffd" + "a" * 200_000


def _container(root: Path, script: str, on_line: Callable[[str], object]) -> Container:
    root.mkdir()
    return Container(program="training", root=root, entrypoint=["python3", "-c", script], on_line=on_line)


def _processes(mark: str) -> list[str]:
    """Command lines that carry `mark`, those of the shells and pythons that start them included."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if mark in text and str(os.getpid()) != file.parent.name:
            found.append(text)
    return found


def _until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
