"""The two commands that serve the page, as processes: they say where it is, and end when they are told to."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import requests
from typer.testing import CliRunner

from kennel.cli import app
from kennel.rehearsal.samples import write_digits
from tests.conftest import KeptRehearsal

ROOT = Path(__file__).resolve().parents[3]
ALIAS = "arn:aws:lambda:us-east-1:123456789012:function:classify:live"


@contextmanager
def kennel(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a process, and the page's address once it is told."""
    code = "from kennel.cli import app; app(prog_name='kennel')"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        said = (
            re.search(r"Drop a photo on (http://127\.0\.0\.1:\d+/[\w-]+/)$", line.rstrip()) for line in process.stdout
        )
        yield process, next(found[1] for found in said if found)
    finally:
        process.kill()
        process.communicate()


def ask(page: str, picture: bytes) -> Any:
    answer = requests.post(f"{page}classify", picture, headers={"Origin": page[: page.index("/", 7)]}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def deployed(stage: str) -> str:
    """A stage whose Classify stack says what a real one says."""
    outputs = {"FunctionAliasArn": ALIAS, "ApiUrl": "https://api.example/classify"}
    body = {
        "Resources": {"B": {"Type": "AWS::S3::Bucket"}},
        "Outputs": {name: {"Value": value} for name, value in outputs.items()},
    }
    boto3.client("cloudformation").create_stack(StackName=f"Kennel-{stage}-Classify", TemplateBody=json.dumps(body))
    return stage


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_invoke_serves_the_page_of_a_stage_until_it_is_stopped(deployed: str, stop: signal.Signals) -> None:
    with kennel("invoke", "--page", "--stage", deployed) as (process, page):
        assert requests.get(f"{page}about", timeout=60).json()["stage"] == deployed
        query = {"source": "image", "value": "rex.jpg", "type": "image/jpeg"}
        snippets = requests.get(f"{page}snippets", query, timeout=60).json()
        process.send_signal(stop)
        assert process.wait(timeout=60) == 0
    assert ALIAS in snippets["AWS CLI"]
    assert "testing" not in "".join(snippets.values()), "the operator's secret key is shown"


def test_beside_an_embedded_aws_curl_asks_lambda_itself(deployed: str, aws: str) -> None:
    with kennel("invoke", "--page", "--stage", deployed) as (_, page):
        query = {"source": "url", "value": "https://example.org/x.jpg"}
        curl = requests.get(f"{page}snippets", query, timeout=60).json()["curl"]
    assert f"{aws}/2015-03-31/functions/classify/invocations?Qualifier=live" in curl
    assert "api.example" not in curl


def test_beside_aws_curl_asks_the_http_api(deployed: str, aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", aws)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with kennel("invoke", "--page", "--stage", deployed) as (_, page):
        query = {"source": "url", "value": "https://example.org/x.jpg"}
        curl = requests.get(f"{page}snippets", query, timeout=60).json()["curl"]
    assert curl.rstrip().endswith("https://api.example/classify")


@pytest.mark.parametrize("arguments", [["rex.jpg", "--page"], []])
def test_a_picture_or_the_page_but_not_both_nor_neither(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, ["invoke", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "Give either a picture (IMAGE, URL or S3-URI) or --page." in done.stderr


@pytest.mark.usefixtures("aws")
def test_a_stage_that_is_not_deployed_has_no_page() -> None:
    done = CliRunner().invoke(app, ["invoke", "--page", "--stage", "Gone"])
    assert done.exit_code == 1
    assert "run `make deploy STAGE=Gone` first." in done.stderr


@pytest.mark.torch
@pytest.mark.long
def test_a_rehearsal_that_is_kept_up_answers_photos_on_its_page(kept_rehearsal: KeptRehearsal, tmp_path: Path) -> None:
    page = kept_rehearsal.page
    three = next((write_digits(tmp_path / "digits") / "test/three").glob("*.png")).read_bytes()
    good, bad = ask(page, three), ask(page, b"no picture")
    query = {"source": "image", "value": "three.png", "type": "image/png"}
    (tmp_path / "three.png").write_bytes(three)
    curl = requests.get(f"{page}snippets", query, timeout=60).json()["curl"]
    again = subprocess.run(["sh", "-ec", curl], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert len(good["predictions"]) == 5
    assert {"endpoint_ms", "queue_ms", "decode_ms", "model_ms"} <= set(good["timings"])
    assert bad["error"]["code"] == "not_an_image"
    assert json.loads(again.stdout)["predictions"] == good["predictions"]
