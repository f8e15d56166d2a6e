"""What a sandbox loads and prepares before its first answer, each time in an interpreter of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lib import assets
from tests.functions.worlds import PICTURE, Runtime

FOLDER = Path(__file__).parents[2] / "lambda"

# Told of by name, since a module of another version may well bring others.
DEAR = ("boto3", "botocore.session", "botocore.client", "botocore.credentials", "botocore.loaders", "botocore.model")
OURS = (
    "classify.fetch",
    "classify.urls",
    "classify.addresses",
    "classify.objects",
    "classify.aws",
    "classify.error_mapping",
)

ANSWER = """
import json, sys
from classify.handler import handler
answer = handler(json.loads(sys.argv[1]), None)
sys.stdout.write(json.dumps({"answer": answer, "modules": sorted(sys.modules)}))
"""
PREPARED = "import classify.handler, classify.timed_socket; print(classify.timed_socket.tls.cache_info().currsize)"


def run(code: str, *arguments: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_LAMBDA_")}
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", code, *arguments],
        env=environment | {"PYTHONPATH": str(FOLDER)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def loaded(event: Any) -> tuple[dict[str, Any], set[str]]:
    told = json.loads(run(ANSWER, json.dumps(event)))
    return told["answer"], set(told["modules"])


def test_a_picture_in_the_request_loads_nothing_that_only_others_need(runtime: Runtime) -> None:
    answer, modules = loaded(PICTURE)
    assert answer["label"] == "dog"
    assert {"botocore.auth", "classify.sagemaker_runtime"} <= modules
    assert modules & {*DEAR, *OURS} == set()


def test_a_picture_behind_a_url_needs_no_boto3(runtime: Runtime) -> None:
    answer, modules = loaded({"url": "https://127.0.0.1/"})
    assert answer["error"]["code"] == "url_refused"
    assert "classify.fetch" in modules
    assert modules & set(DEAR) == set()


def test_only_an_object_needs_boto3(runtime: Runtime, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    refused, before = loaded({"s3_uri": "s3://elsewhere/dog.png"})
    assert refused["error"]["code"] == "s3_refused"
    assert "boto3" not in before
    _, after = loaded({"s3_uri": "s3://pictures-bucket/photos/dog.png"})
    assert {"boto3", "classify.aws"} <= after


@pytest.mark.parametrize(
    ("variables", "contexts"),
    [
        ({}, "0"),
        ({"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"}, "1"),
        ({"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"}, "1"),
        ({"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "0"),
        ({"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_ENDPOINT_URL": "https://["}, "1"),
    ],
)
def test_lambda_reads_the_certificate_authorities_before_the_first_event(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], contexts: str
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"):
        monkeypatch.delenv(name, raising=False)  # an operator's own
    assert run(PREPARED, **variables) == contexts


@pytest.mark.parametrize("name", ["classify", "promote", "unregister"])
def test_a_package_is_small_even_with_compiled_files(name: str, tmp_path: Path) -> None:
    (tmp_path / "asset").mkdir()
    assets.source_only(FOLDER / name, tmp_path / "asset" / name)
    assert assets.kilobytes(assets.compiled(tmp_path / "asset", tmp_path / "compiled")) < 200
