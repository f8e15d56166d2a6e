"""Functions run under AWS's own runtime client, as Lambda would run them."""

import http.client
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kennel.rehearsal.interfaces import FunctionAnswer, FunctionCall, TooManyRequests
from kennel.rehearsal.serving.functions import Functions

ROLE = "arn:aws:iam::123456789012:role/classify"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:classify:live"
CODE = """
import json, os, pathlib, time
def handler(event, context):
    kind = event.get("do")
    print("asked to", kind)
    if kind == "raise": raise ValueError("no such dog")
    if kind == "exit": os._exit(3)
    if kind == "wait":
        pathlib.Path(event["folder"], str(os.getpid())).touch()
        while not pathlib.Path(event["folder"], "go").exists(): time.sleep(0.01)
    if kind == "big": return "x" * event["bytes"]
    if kind == "print": print("y" * 10_000)
    return {"pid": os.getpid(), "environment": dict(os.environ), "arn": context.invoked_function_arn,
            "left": context.get_remaining_time_in_millis(), "memory": context.memory_limit_in_mb,
            "version": context.function_version}
"""


@pytest.fixture
def functions() -> Iterator[Functions]:
    made = Functions(environment=lambda role: {"AWS_ACCESS_KEY_ID": f"key of {role}"}, concurrency=2)
    yield made
    made.close()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "app.py").write_text(CODE)
    (folder / "broken.py").write_text("import nothing_of_that_name")
    (folder / "dying.py").write_text("import os; os._exit(7)")
    return folder


def _call(code: Path, event: Any = None, **more: Any) -> FunctionCall:
    settings: dict[str, Any] = {
        "arn": ARN,
        "version": "3",
        "handler": "app.handler",
        "code": code,
        "role_arn": ROLE,
        "environment": {"ENDPOINT_NAME": "kennel-dev"},
        "timeout_s": 60.0,
        "memory_mb": 256,
        "payload": json.dumps(event or {}).encode(),
    }
    return FunctionCall(**(settings | more))


def _waiting(code: Path, folder: Path, **more: Any) -> FunctionCall:
    """A call that runs until there is a file `go` in `folder`/running."""
    (folder / "running").mkdir()
    return _call(code, {"do": "wait", "folder": str(folder / "running")}, **more)


def _until_running(folder: Path, count: int) -> None:
    while len([*(folder / "running").iterdir()]) < count:
        threading.Event().wait(0.01)


def _value(answer: FunctionAnswer) -> dict[str, Any]:
    assert answer.error is None, answer
    value: dict[str, Any] = json.loads(answer.payload)
    return value


def test_a_function_knows_its_name_version_memory_and_deadline(functions: Functions, code: Path) -> None:
    value = _value(functions.invoke(_call(code)))
    assert value["arn"] == ARN
    assert value["version"] == "3"
    assert value["memory"] == "256"
    assert 0 < value["left"] <= 60_000


def test_a_function_has_lambdas_variables_its_own_and_its_roles_and_no_others(
    functions: Functions, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "the operator's own")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    found = _value(functions.invoke(_call(code)))["environment"]
    assert found["ENDPOINT_NAME"] == "kennel-dev"
    assert found["AWS_ACCESS_KEY_ID"] == f"key of {ROLE}"
    assert found["AWS_REGION"] == "eu-west-1"
    assert found["AWS_LAMBDA_FUNCTION_NAME"] == "classify"
    assert found["LAMBDA_TASK_ROOT"] == str(code)
    own = {"PATH", "LANG", "TZ", "HOME", "ENDPOINT_NAME", "_HANDLER", "_X_AMZN_TRACE_ID", "LC_CTYPE", "PWD"}
    assert {name for name in found if not name.startswith(("AWS_", "LAMBDA_"))} <= own
    assert "AWS_PROFILE" not in found


def test_the_second_call_is_warm_and_a_new_version_is_not(functions: Functions, code: Path) -> None:
    first, second = (_value(functions.invoke(_call(code)))["pid"] for _ in range(2))
    other = _value(functions.invoke(_call(code, version="4")))["pid"]
    changed = _value(functions.invoke(_call(code, environment={"ENDPOINT_NAME": "other"})))["pid"]
    assert first == second
    assert len({first, other, changed}) == 3


def test_two_calls_at_once_get_a_sandbox_each_and_a_third_is_throttled(
    functions: Functions, code: Path, tmp_path: Path
) -> None:
    call = _waiting(code, tmp_path)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(functions.invoke, call) for _ in range(2)]
        _until_running(tmp_path, 2)
        with pytest.raises(TooManyRequests, match="Rate Exceeded"):
            functions.invoke(call)
        (tmp_path / "running" / "go").touch()
        assert len({_value(answer.result())["pid"] for answer in answers}) == 2


def test_an_exception_comes_back_as_lambdas_error_and_the_sandbox_stays(functions: Functions, code: Path) -> None:
    before = _value(functions.invoke(_call(code)))["pid"]
    answer = functions.invoke(_call(code, {"do": "raise"}))
    assert answer.error == "Unhandled"
    error = json.loads(answer.payload)
    assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no such dog")
    assert _value(functions.invoke(_call(code)))["pid"] == before


def test_a_function_that_takes_too_long_is_killed_and_the_next_call_starts_anew(
    functions: Functions, code: Path, tmp_path: Path
) -> None:
    before = _value(functions.invoke(_call(code)))["pid"]
    answer = functions.invoke(_waiting(code, tmp_path, timeout_s=0.5))
    assert answer.error == "Unhandled"
    error = json.loads(answer.payload)
    assert error["errorType"] == "Sandbox.Timedout"
    assert error["errorMessage"].endswith("Task timed out after 0.50 seconds")
    assert not Path(f"/proc/{before}").exists()
    assert _value(functions.invoke(_call(code)))["pid"] != before


def test_a_function_that_ends_its_process_is_reported_with_the_status(functions: Functions, code: Path) -> None:
    error = json.loads(functions.invoke(_call(code, {"do": "exit"})).payload)
    assert error["errorType"] == "Runtime.ExitError"
    assert error["errorMessage"].endswith("Runtime exited: exit status 3")


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        ("broken.handler", "Runtime.ImportModuleError"),
        ("missing.handler", "Runtime.ImportModuleError"),
        ("app.nothing", "Runtime.HandlerNotFound"),
        ("dying.handler", "Runtime.ExitError"),
    ],
)
def test_a_function_that_cannot_be_loaded_says_why(functions: Functions, code: Path, handler: str, kind: str) -> None:
    answer = functions.invoke(_call(code, handler=handler))
    assert answer.error == "Unhandled"
    assert json.loads(answer.payload)["errorType"] == kind


def test_the_log_is_that_of_its_own_invocation(functions: Functions, code: Path) -> None:
    functions.invoke(_call(code, {"do": "first"}))
    log = functions.invoke(_call(code, {"do": "second"})).log
    assert log.startswith("START RequestId: ") and "Version: 3" in log.splitlines()[0]
    assert "asked to second" in log
    assert "first" not in log
    assert "\nREPORT RequestId: " in log


def test_the_log_is_cut_to_its_last_four_kilobytes(functions: Functions, code: Path) -> None:
    log = functions.invoke(_call(code, {"do": "print"})).log
    assert len(log.encode()) == 4096
    assert "REPORT RequestId: " in log


def test_an_answer_over_six_megabytes_becomes_an_error(functions: Functions, code: Path) -> None:
    fits = functions.invoke(_call(code, {"do": "big", "bytes": 6 * 1024 * 1024 - 2}))
    assert (fits.error, len(fits.payload)) == (None, 6 * 1024 * 1024)
    answer = functions.invoke(_call(code, {"do": "big", "bytes": 6 * 1024 * 1024}))
    assert json.loads(answer.payload)["errorType"] == "Function.ResponseSizeTooLarge"


def test_close_ends_every_sandbox_also_the_busy_ones(code: Path, tmp_path: Path) -> None:
    functions = Functions(environment=lambda role: {})
    idle = _value(functions.invoke(_call(code, version="1")))["pid"]
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(functions.invoke, _waiting(code, tmp_path))
        _until_running(tmp_path, 1)
        functions.close()
        assert busy.result().error == "Unhandled"
    assert not Path(f"/proc/{idle}").exists()
    with pytest.raises(RuntimeError, match="shut down"):
        functions.invoke(_call(code))


def test_the_code_folder_stays_as_it_was(functions: Functions, code: Path) -> None:
    before = sorted(os.listdir(code))  # noqa: PTH208
    functions.invoke(_call(code))
    assert sorted(os.listdir(code)) == before  # noqa: PTH208


# ---- the Runtime API, which listens on loopback, where everybody on this machine may ask
def ask(address: str, method: str, path: str, body: bytes = b"", **headers: str) -> int:
    """The status of the answer; 0 where the connection is closed without one."""
    host, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
    try:
        connection.request(
            method, f"/2018-06-01/runtime/{path}", body, {k.replace("_", "-"): v for k, v in headers.items()}
        )
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Referer": "http://localhost/"},
        {"Host": "evil.example"},
        {"Host": "localhost"},
    ],
)
def test_a_web_page_can_neither_take_an_event_nor_answer_one(
    functions: Functions, code: Path, headers: dict[str, str]
) -> None:
    before = _value(functions.invoke(_call(code)))
    address = before["environment"]["AWS_LAMBDA_RUNTIME_API"]
    assert ask(address, "GET", "invocation/next", b"", **headers) == 403
    assert ask(address, "POST", "init/error", b'{"errorType": "evil"}', **headers) == 403
    assert _value(functions.invoke(_call(code)))["pid"] == before["pid"]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells whose a connection is")
def test_another_user_of_the_machine_is_not_let_in(
    functions: Functions, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _value(functions.invoke(_call(code)))
    address = before["environment"]["AWS_LAMBDA_RUNTIME_API"]
    assert ask(address, "POST", "nothing") == 404
    with monkeypatch.context() as patched:
        patched.setattr("os.getuid", lambda: 4_000_000)  # so that the connection of this process is another user's
        assert ask(address, "GET", "invocation/next") == 0
        assert ask(address, "POST", "init/error", b'{"errorType": "evil"}') == 0
    assert _value(functions.invoke(_call(code)))["pid"] == before["pid"]


def test_a_function_s_home_is_not_a_folder_in_which_others_write(functions: Functions, code: Path) -> None:
    """boto3 reads settings there, and Python packages that are not a virtual environment's."""
    assert _value(functions.invoke(_call(code)))["environment"]["HOME"] == str(code.parent)
