"""What the functions are made of, and what a sandbox loads, prepares and runs before its first answer."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.functions.fakes import IMAGE, Endpoint, ask, code_of

FOLDER = Path(__file__).parents[2] / "lambda"
FILES = sorted(FOLDER.rglob("*.py"))
CARRIED = {"boto3", "botocore", "urllib3"}

# Those that nothing but a request for an object needs, by name, since another version may well bring others.
DEAR = {"boto3", "botocore.session", "botocore.client", "botocore.credentials", "botocore.loaders", "botocore.model"}
LAZY = {"classify.fetch", "classify.objects"}

LOADED = """
import json, sys
from classify.handler import handler
answers = []
for event in json.loads(sys.argv[1]):
    answers.append([handler(event, None), sorted(sys.modules)])
sys.stdout.write(json.dumps(answers))
"""
PREPARED = """
import classify.handler
from classify import logic, sagemaker_runtime
print(logic.runtime.cache_info().currsize, sagemaker_runtime.tls_context.cache_info().currsize)
"""


def imports(path: Path) -> set[str]:
    """The top-level names of all packages that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module
            found.add(node.module.partition(".")[0])
    return found


def test_the_files_are_found() -> None:
    assert {"classify/handler.py", "promote/handler.py"} <= {str(path.relative_to(FOLDER)) for path in FILES}


@pytest.mark.parametrize("minor", [11, 14])
def test_each_file_is_in_the_grammar_of_python(minor: int) -> None:
    for path in FILES:
        ast.parse(path.read_text(), str(path), feature_version=(3, minor))


def test_nothing_is_imported_that_the_runtime_does_not_carry() -> None:
    for path in FILES:
        package = path.relative_to(FOLDER).parts[0]
        assert imports(path) <= set(sys.stdlib_module_names) | CARRIED | {package}, path


def test_one_module_of_each_function_calls_a_service_of_aws() -> None:
    callers = {str(path.relative_to(FOLDER)) for path in FILES if imports(path) & CARRIED}
    assert callers == {
        "classify/objects.py",  # S3
        "classify/sagemaker_runtime.py",
        "observe/aws.py",
        "probe/aws.py",
        "promote/aws.py",
        "unregister/aws.py",
    }


def run(code: str, *arguments: str, **variables: str) -> str:
    """The last line that an interpreter of its own prints; warnings are errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_LAMBDA_")}
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", code, *arguments],
        env=environment | {"PYTHONPATH": str(FOLDER)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def test_importing_the_handlers_does_nothing() -> None:
    """No client, no thread, no region, no environment: those wait for the first event."""
    handlers = "classify.handler, probe.handler, promote.handler, unregister.handler"
    look = f"import {handlers}, threading; print(threading.active_count())"
    bare = {"PYTHONPATH": str(FOLDER), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-W", "error", "-c", look], env=bare, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_each_kind_of_request_loads_no_more_than_it_needs(endpoint: Endpoint, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    events = [
        IMAGE,
        {"url": "https://127.0.0.1/"},
        {"s3_uri": "s3://elsewhere/dog.png"},
        {"s3_uri": "s3://pictures-bucket/photos/dog.png"},
    ]
    answers: list[tuple[Any, list[str]]] = json.loads(run(LOADED, json.dumps(events)))
    (image, at_image), (url, at_url), (refused, at_refused), (_, at_object) = answers
    assert image["label"] == "dog"
    assert set(at_image) & (DEAR | LAZY) == set()
    assert url["error"]["code"] == "url_refused"
    assert set(at_url) & (DEAR | LAZY) == {"classify.fetch"}
    assert refused["error"]["code"] == "s3_refused"
    assert set(at_refused) & (DEAR | LAZY) == LAZY
    assert "boto3" in at_object


@pytest.mark.parametrize(
    ("variables", "clients", "contexts"),
    [
        ({"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"}, 1, 1),
        ({"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 1, 0),
        ({"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_ENDPOINT_URL": "https://["}, 0, 1),
    ],
)
def test_lambda_makes_the_client_and_reads_the_certificate_authorities_before_the_first_event(
    environment: pytest.MonkeyPatch, variables: dict[str, str], clients: int, contexts: int
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"):
        environment.delenv(name, raising=False)  # an operator's own
    assert run(PREPARED, **variables) == f"{clients} {contexts}"


def test_an_image_goes_through_at_most_eight_files(endpoint: Endpoint) -> None:
    entered: set[str] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.parent == FOLDER / "classify":
            entered.add(file.name)

    sys.setprofile(watch)
    try:
        ask()
    finally:
        sys.setprofile(None)
    assert code_of() == "ok"
    assert entered == {
        "handler.py",
        "events.py",
        "logic.py",
        "deadline.py",
        "image_types.py",
        "sagemaker_runtime.py",
        "model_output.py",
    }
