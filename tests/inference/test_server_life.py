"""How the server starts, stops and refuses to start: real processes, real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.inference.tiny import FACTS, Server, answer_on, listening, picture, start, until, upload, write_model

pytestmark = pytest.mark.long  # real processes, half a second each and more: not on every save

Launch = Callable[..., Server]


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def fails_to_start(folder: Path, **more: str) -> str:
    """Standard error of a server that must not start."""
    process = start(folder, **more)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert [json.loads(line)["event"] for line in out.splitlines()] in ([], ["runtime_selected"])
    assert err.startswith("inference: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_request_under_way_be_answered_and_exits_0(launch: Launch, number: int) -> None:
    server, body = launch(), picture()
    with upload(server.port, body, 100) as connection:
        time.sleep(0.3)  # until the head has been read: a request that nobody has seen is not under way
        server.process.send_signal(number)
        until(lambda: refuses(server.port))
        connection.sendall(body[100:])
        answer = answer_on(connection)
    assert (answer.status, len(answer.json["probabilities"])) == (200, 3)
    assert server.process.wait(timeout=20) == 0


def test_an_idle_connection_does_not_hold_up_the_exit(launch: Launch) -> None:
    server = launch()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        began = time.monotonic()
        assert server.stop()[0] == 0
    assert time.monotonic() - began < 10


def catches_sigterm(process: subprocess.Popen[str]) -> bool:
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
    return caught >> (signal.SIGTERM - 1) & 1 == 1


def test_sigterm_before_the_server_listens_ends_it_with_0(opt_ml: Path) -> None:
    process = start(opt_ml)
    until(lambda: catches_sigterm(process))
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_the_first_process_of_a_container_is_stopped_by_sigterm(opt_ml: Path) -> None:
    """To the kernel PID 1 is special: a signal without a handler never reaches it."""
    unshare = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine refuses private process namespaces")
    process = start(opt_ml, *unshare)
    try:
        listening(process)
        inner = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        os.kill(inner, signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_one_sentence_and_exit_1(server: Server, opt_ml: Path) -> None:
    error = fails_to_start(opt_ml, SAGEMAKER_BIND_TO_PORT=str(server.port))
    assert f"127.0.0.1:{server.port}: Address already in use" in error
    assert "SAGEMAKER_BIND_TO_PORT" in error


def test_the_port_that_sagemaker_chooses_is_the_one_that_answers(launch: Launch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert launch(SAGEMAKER_BIND_TO_PORT=str(port)).port == port


@pytest.mark.parametrize("name", ["model.json", "model.xml", "model.bin"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_model(tmp_path / "model") / name).unlink()
    assert f"{tmp_path}/model/{name} is missing" in fails_to_start(tmp_path)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_network_that_is_cut_off_is_not_served(tmp_path: Path, name: str) -> None:
    file = write_model(tmp_path / "model") / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "model.xml cannot be loaded by openvino: " in fails_to_start(tmp_path)


def test_more_classes_than_outputs_are_not_served(tmp_path: Path) -> None:
    write_model(tmp_path / "model", classes=2)
    assert "model.json names 3 classes, but the output of model.xml has the shape [?,2]" in fails_to_start(tmp_path)


def test_another_crop_than_the_network_takes_is_not_served(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    facts = {**FACTS, "preprocessing": {**FACTS["preprocessing"], "crop": 30}}
    (folder / "model.json").write_text(json.dumps(facts))
    assert "of shape [1, 3, 30, 30]" in fails_to_start(tmp_path)


def test_a_network_that_cannot_answer_is_not_served(tmp_path: Path) -> None:
    write_model(tmp_path / "model", weights=[[float("nan")] * 3] * 3)
    assert "failed on its first picture: " in fails_to_start(tmp_path)


def test_an_unknown_argument_is_explained(opt_ml: Path) -> None:
    command = [sys.executable, "-m", "inference", "train"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "invalid choice: 'train'" in done.stderr


def test_repeated_failures_make_the_ping_503_until_an_answer_succeeds(launch: Launch, tmp_path: Path) -> None:
    # White overflows to infinity in this network, grey does not.
    write_model(tmp_path / "model", weights=[[3e38, 0, 0], [0, 3e38, 0], [0, 0, 3e38]])
    server = launch(tmp_path)
    for _ in range(2):
        answer = server.classify(picture(colour="white"))
        assert (answer.status, answer.code) == (500, "internal_error")
        assert "finite" not in answer.json["error"]["message"]
        assert server.ask("GET", "/ping").status == 200
    server.classify(picture(colour="white"))
    assert server.ask("GET", "/ping").status == 503
    assert server.classify(picture(colour="gray")).status == 200
    assert server.ask("GET", "/ping").status == 200
    errors = [line for line in server.stop()[1] if line["level"] == "error"]
    assert len(errors) == 3
    assert "not finite" in errors[0]["exception"]
