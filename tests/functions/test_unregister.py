"""A stage's group is emptied when its stack is deleted, never otherwise, and CloudFormation always hears of it."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.functions.fakes import Context
from unregister import aws
from unregister.handler import handler

GROUP = "kennel-test"
STACK = "arn:aws:cloudformation:eu-central-1:123456789012:stack/Test-Data/1"
_STACKS = """<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult>
<Stacks><member><StackName>Test-Data</StackName><CreationTime>2026-11-21T00:00:00Z</CreationTime>
<StackStatus>{}</StackStatus></member></Stacks></DescribeStacksResult></DescribeStacksResponse>"""


def arn(version: int) -> str:
    return f"arn:aws:sagemaker:eu-central-1:123456789012:model-package/{GROUP}/{version}"


@dataclass
class World:
    """SageMaker (two packages a page), CloudFormation and the store of answers, on one port."""

    url: str = ""
    status: str = "DELETE_IN_PROGRESS"
    packages: list[str] = field(default_factory=lambda: [arn(version) for version in range(1, 6)])
    refusals: dict[str, tuple[str, str]] = field(default_factory=dict)  # ARN or operation -> (code, message)
    asked: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    content_types: list[str | None] = field(default_factory=list)
    store: list[int] = field(default_factory=list)  # statuses that the store answers with before 200

    def sagemaker(self, operation: str, asked: dict[str, Any]) -> tuple[int, Any]:
        self.asked.append(operation)
        refusal = self.refusals.get(asked.get("ModelPackageName", operation))
        if refusal:
            return 400, {"__type": refusal[0], "message": refusal[1]}
        if operation == "DeleteModelPackage":
            self.packages.remove(asked["ModelPackageName"])
            return 200, {}
        assert asked["ModelPackageGroupName"] == GROUP
        start = int(asked.get("NextToken", 0))
        page = [{"ModelPackageArn": each} for each in self.packages[start : start + 2]]
        more = {"NextToken": str(start + 2)} if start + 2 < len(self.packages) else {}
        return 200, {"ModelPackageSummaryList": page, **more}

    def event(self, request: str = "Delete", **more: Any) -> dict[str, Any]:
        return {
            "RequestType": request,
            "ResponseURL": f"{self.url}/answer?signature=1",
            "StackId": STACK,
            "RequestId": "request-1",
            "LogicalResourceId": "Unregister",
            "PhysicalResourceId": "as-before",
            "ResourceProperties": {"ModelPackageGroupName": GROUP},
        } | more

    @property
    def heard(self) -> tuple[str, str]:
        (answer,) = self.answers
        return answer["Status"], answer["Reason"]


def _handler(world: World) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self._body()
            if target := self.headers.get("X-Amz-Target"):
                status, said = world.sagemaker(target.partition(".")[2], json.loads(body))
                return self._send(status, json.dumps(said).encode())
            world.asked.append("DescribeStacks")
            self._send(200, _STACKS.format(world.status).encode())

        def do_PUT(self) -> None:
            body = self._body()
            status = world.store.pop(0) if world.store else 200
            if status == 200:
                world.answers.append(json.loads(body))
                world.content_types.append(self.headers["Content-Type"])
            self._send(status, b"")

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(world))
    world.url = f"http://127.0.0.1:{server.server_address[1]}"
    names = {"AWS_DEFAULT_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "x"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", world.url)
    monkeypatch.setattr("unregister.handler.time.sleep", lambda _: None)
    aws._client.cache_clear()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield world
    server.shutdown()
    thread.join()
    server.server_close()
    aws._client.cache_clear()


def test_every_package_of_every_page_is_deleted(world: World) -> None:
    handler(world.event(), Context(900))
    assert world.packages == []
    assert world.heard == ("SUCCESS", "deleted 5 model packages")


def test_an_empty_group_is_a_success(world: World) -> None:
    world.packages = []
    handler(world.event(), Context(900))
    assert world.heard == ("SUCCESS", "deleted 0 model packages")


@pytest.mark.parametrize("request_type", ["Create", "Update"])
def test_creating_and_updating_ask_nothing_of_aws(world: World, request_type: str) -> None:
    handler(world.event(request_type), Context(900))
    assert world.asked == []
    assert world.heard[0] == "SUCCESS"


@pytest.mark.parametrize(
    "status", ["UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_COMPLETE"]
)
def test_a_resource_that_only_leaves_the_template_costs_no_model(world: World, status: str) -> None:
    world.status = status
    handler(world.event(), Context(900))
    assert len(world.packages) == 5
    assert world.heard == ("SUCCESS", f"models kept: the stack is {status}, not being deleted")


def test_the_answer_is_what_cloudformation_knows_the_request_by(world: World) -> None:
    handler(world.event(), Context(900))
    (answer,) = world.answers
    assert {key: answer[key] for key in ("StackId", "RequestId", "LogicalResourceId", "PhysicalResourceId")} == {
        "StackId": STACK,
        "RequestId": "request-1",
        "LogicalResourceId": "Unregister",
        "PhysicalResourceId": "as-before",
    }
    assert world.content_types == [""]  # the URL is signed for that


def test_a_new_resource_is_named_after_its_group(world: World) -> None:
    event = world.event("Create")
    del event["PhysicalResourceId"]
    handler(event, Context(900))
    assert world.answers[0]["PhysicalResourceId"] == f"models-of-{GROUP}"


@pytest.mark.parametrize(
    "refusal", [("ResourceNotFound", "gone"), ("ValidationException", f"ModelPackage {arn(2)} does not exist.")]
)
def test_a_package_that_somebody_else_deleted_is_no_failure(world: World, refusal: tuple[str, str]) -> None:
    world.refusals[arn(2)] = refusal
    handler(world.event(), Context(900))
    assert world.packages == [arn(2)]  # the others went
    assert world.heard[0] == "SUCCESS"


def test_a_group_that_is_gone_is_a_success(world: World) -> None:
    world.refusals["ListModelPackages"] = ("ValidationException", f"ModelPackageGroup {GROUP} does not exist.")
    handler(world.event(), Context(900))
    assert world.heard == ("SUCCESS", "deleted 0 model packages")


def test_a_refused_deletion_fails_with_sagemakers_reason(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.refusals[arn(3)] = ("ConflictException", "still being made")
    handler(world.event(), Context(900))
    status, reason = world.heard
    assert status == "FAILED"
    assert "still being made" in reason
    assert json.loads(capsys.readouterr().out)["level"] == "ERROR"


def test_what_no_time_is_left_for_is_counted_and_the_cure_said(world: World) -> None:
    handler(world.event(), Context(200))
    assert len(world.packages) == 5
    said = f"UnregisterError: 5 model packages of {GROUP} are left; delete the stack again."
    assert world.heard == ("FAILED", said)


def test_a_request_of_another_kind_fails(world: World) -> None:
    handler(world.event("Import"), Context(900))
    assert world.heard[0] == "FAILED"
    assert "'Import'" in world.heard[1]


@pytest.mark.parametrize("more", [{"ResourceProperties": {}}, {"StackId": None}])
def test_a_broken_request_is_answered_too(world: World, more: dict[str, Any]) -> None:
    handler(world.event(**more), Context(900))
    assert world.heard[0] == "FAILED"
    assert len(world.packages) == 5


def test_a_long_reason_is_cut_to_what_cloudformation_takes(world: World) -> None:
    world.refusals[arn(1)] = ("ConflictException", "x" * 10_000)
    handler(world.event(), Context(900))
    assert len(json.dumps(world.answers[0])) < 4096


def test_a_store_that_fails_for_a_moment_is_tried_again(world: World) -> None:
    world.store = [503, 500]
    handler(world.event(), Context(900))
    assert world.heard[0] == "SUCCESS"


def test_an_answer_that_cannot_be_delivered_fails_the_invocation_so_that_lambda_asks_again(world: World) -> None:
    world.store = [503] * 5
    with pytest.raises(OSError, match="503"):
        handler(world.event(), Context(900))
    handler(world.event(), Context(900))
    assert world.heard == ("SUCCESS", "deleted 0 model packages")


def test_a_refused_signature_is_not_tried_again(world: World) -> None:
    world.store = [403]
    with pytest.raises(OSError, match="403"):
        handler(world.event(), Context(900))
    assert world.answers == []
