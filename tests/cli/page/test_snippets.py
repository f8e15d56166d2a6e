"""What the page gives to copy, pasted and run: real curl, the real AWS CLI and boto3."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import requests
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from kennel.page.snippets import Target, snippets
from tests.cli.page.world import GOOD, PageWorld
from tests.cli.trees import png

TOOLS = ("curl", "AWS CLI", "boto3")
HOSTILE = "-$(touch owned) 'it''s \"ü\\ `.png"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "se/cr+et"}


def paste(tool: str, text: str, folder: Path, **environment: str) -> Any:
    """The answer that the snippet prints, run in `folder` with no AWS settings but those given."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    plain |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "AWS_EC2_METADATA_DISABLED": "true"}
    program = [sys.executable, "-c", text] if tool == "boto3" else ["sh", "-ec", text]
    run = subprocess.run(program, cwd=folder, env=plain | environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    printed = run.stdout.rpartition("\n}\n")[2] if tool == "AWS CLI" else run.stdout  # after the CLI's own summary
    return json.loads(printed)


@pytest.mark.parametrize("tool", TOOLS)
def test_beside_a_rehearsal_a_picture_is_asked_about_with_nothing_else_set(
    page: PageWorld, tool: str, tmp_path: Path
) -> None:
    (tmp_path / HOSTILE).write_bytes(png())
    query = {"source": "image", "value": HOSTILE, "type": "image/png"}
    texts = requests.get(f"{page.url}snippets", query, timeout=60).json()
    assert tuple(texts) == TOOLS
    assert paste(tool, texts[tool], tmp_path) == GOOD
    assert page.pictures == [png()]
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("tool", TOOLS)
def test_so_is_an_address(page: PageWorld, tool: str, tmp_path: Path) -> None:
    value = "https://example.org/a'b$(touch owned)?x=1&y=ü%20%s"
    text = snippets(page.target, "url", value, "")[tool]
    assert paste(tool, text, tmp_path) == GOOD
    assert page.asked == [{"url": value}]
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("tool", ["AWS CLI", "boto3"])
def test_for_a_deployed_stage_no_secret_is_shown_and_the_shells_own_is_used(
    page: PageWorld, tool: str, tmp_path: Path
) -> None:
    (tmp_path / "rex.png").write_bytes(png())
    target = Target("Dev", page.target.function, page.target.client, "https://api.example/classify")
    texts = snippets(target, "image", "rex.png", "image/png")
    secret = page.target.environment["AWS_SECRET_ACCESS_KEY"]
    assert all(secret not in text for text in texts.values())
    assert paste(tool, texts[tool], tmp_path, **page.target.environment) == GOOD
    assert page.pictures == [png()]


@pytest.mark.parametrize("query", [{}, {"source": "image"}, {"value": "x"}, {"source": "file", "value": "x"}])
def test_a_question_that_is_none_has_no_snippets(page: PageWorld, query: dict[str, str]) -> None:
    assert requests.get(f"{page.url}snippets", query, timeout=60).status_code == 400


class Api(HTTPServer):
    """An HTTP API that believes a request as AWS does: by its Signature Version 4, made anew by botocore."""

    token: str | None = None
    body, kind = b"", ""

    def signed(self, handler: BaseHTTPRequestHandler) -> bool:
        given = handler.headers["Authorization"]
        names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        request = AWSRequest("POST", f"http://{handler.headers['Host']}{handler.path}", data=self.body)
        for name in names:
            request.headers[name] = handler.headers[name]
        request.context["timestamp"] = handler.headers["X-Amz-Date"]
        auth = SigV4Auth(Credentials(*KEYS.values(), self.token), "execute-api", "eu-west-1")
        signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        token = handler.headers.get("X-Amz-Security-Token")
        return (
            f"Signature={signature}" in given and token == self.token and (not token or "x-amz-security-token" in names)
        )


class _Handler(BaseHTTPRequestHandler):
    server: Api

    def do_POST(self) -> None:
        self.server.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.kind = self.headers["Content-Type"]
        body = json.dumps(GOOD if self.server.signed(self) else {"message": "Forbidden"}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def api() -> Iterator[Api]:
    server = Api(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    yield server
    server.shutdown()
    server.server_close()


def deployed(api: Api) -> Target:
    client = boto3.client("lambda", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="y")
    return Target(
        "Prod", "arn:aws:lambda:eu-west-1:1:function:f:live", client, f"http://127.0.0.1:{api.server_port}/classify"
    )


@pytest.mark.parametrize("token", [None, "to/ken+=="])
def test_curl_signs_a_picture_for_the_http_api(api: Api, token: str | None, tmp_path: Path) -> None:
    (tmp_path / HOSTILE).write_bytes(png())
    api.token = token
    text = snippets(deployed(api), "image", HOSTILE, "image/png")["curl"]
    keys = KEYS | ({"AWS_SESSION_TOKEN": token} if token else {})
    assert paste("curl", text, tmp_path, **keys) == GOOD
    assert (api.kind, api.body) == ("image/png", png())


def test_curl_signs_an_address_for_the_http_api(api: Api, tmp_path: Path) -> None:
    text = snippets(deployed(api), "url", "https://example.org/a'b.jpg", "")["curl"]
    assert paste("curl", text, tmp_path, **KEYS) == GOOD
    assert (api.kind, json.loads(api.body)) == ("application/json", {"url": "https://example.org/a'b.jpg"})


def test_a_signature_made_with_another_key_is_not_believed(api: Api, tmp_path: Path) -> None:
    text = snippets(deployed(api), "url", "https://example.org/x.jpg", "")["curl"]
    assert paste("curl", text, tmp_path, **KEYS | {"AWS_SECRET_ACCESS_KEY": "other"}) == {"message": "Forbidden"}
