"""docs/contracts against the functions: the schema of answers, the OpenAPI document, and the tables of the page."""

import ast
import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import validate
from openapi_spec_validator.readers import read_from_filename
from referencing import Registry, Resource

from classify import events
from classify.errors import INTERNAL, OUTCOMES, ClassifyError
from classify.handler import handler
from tests.functions.fakes import (
    HOST,
    IMAGE,
    PNG,
    Context,
    Endpoint,
    Internet,
    Reply,
    Site,
    base64_of,
    http,
    page,
    picture,
    probabilities,
)

ROOT = Path(__file__).parents[2]
CONTRACTS = ROOT / "docs" / "contracts"
PAGE = (CONTRACTS / "lambda-api.md").read_text()
SCHEMA: dict[str, Any] = json.loads((CONTRACTS / "lambda-answer.schema.json").read_text())
OPENAPI: Any = read_from_filename(str(CONTRACTS / "openapi.yaml"))[0]
REGISTRY = Registry().with_resource(SCHEMA["$id"], Resource.from_contents(SCHEMA))
DOCUMENTED = {outcome.code: outcome for outcome in (*OUTCOMES.values(), INTERNAL)}


def is_valid(value: Any, schema: Any = SCHEMA) -> bool:
    return bool(Draft202012Validator(schema, registry=REGISTRY).is_valid(value))


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    section = PAGE.split(f"# {heading}\n")[1]
    lines = section[section.index("|---") :].split("\n")[1:]
    end = next((number for number, line in enumerate(lines) if not line.startswith("|")), None)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:end]]


def names(cells: list[str]) -> list[str]:
    return re.findall(r"`([^`]+)`", cells[0])


def hang(_: Any, over: threading.Event) -> None:
    over.wait(60)


def refused_by(status: int, **more: Any) -> Reply:
    return Reply(424, {"OriginalStatusCode": status, "OriginalMessage": "secret"} | more, "ModelError")


NOT_FOUND = Reply(400, {"message": "Endpoint kennel-test of account 123456789012 not found."}, "ValidationError")
PRODUCED: dict[str, tuple[Any, Reply]] = {
    "invalid_request": ({}, Reply()),
    "not_an_image": ({"image": base64_of(b"hello")}, Reply()),
    "unsupported_image": ({"image": base64_of(picture("BMP"))}, Reply()),
    "too_large": (IMAGE, refused_by(413)),
    "url_refused": ({"url": "https://127.0.0.1/"}, Reply()),
    "s3_refused": ({"s3_uri": "s3://elsewhere/dog.png"}, Reply()),
    "fetch_failed": ({"url": "https://nowhere.example/"}, Reply()),
    "fetch_timeout": ({"url": f"https://{HOST}/hangs.png"}, Reply()),
    "no_model": (IMAGE, NOT_FOUND),
    "endpoint_throttled": (IMAGE, Reply(429, {}, "ThrottlingException")),
    "endpoint_unavailable": (IMAGE, refused_by(500)),
    "bad_answer": (IMAGE, Reply(200, {"probabilities": [2.0], "classes": ["cat"]})),
    "internal_error": (IMAGE, Reply(403, {"message": "secret"}, "AccessDeniedException")),
}


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("code", DOCUMENTED)
def test_each_error_can_happen_and_is_as_the_schema_says(
    code: str, endpoint: Endpoint, site: Site, internet: Internet, pauses: list[float]
) -> None:
    event, reply = PRODUCED[code]
    endpoint.replies = [reply]
    internet.names["127.0.0.1"] = [["127.0.0.1"]]
    site.pages["/hangs.png"] = hang
    context = Context(1.0 if code == "fetch_timeout" else 60.0)
    value = handler(event, context)
    assert (value["error"]["code"], value["error"]["status"]) == (code, DOCUMENTED[code].status)
    assert is_valid(value, {"$ref": f"{SCHEMA['$id']}#/$defs/error"})
    assert not is_valid(value, {"$ref": f"{SCHEMA['$id']}#/$defs/answer"})
    if code in ("endpoint_throttled", "no_model"):
        response = handler(http(PNG, "image/png"), context)
        assert json.loads(response["body"]) == value
        assert response["headers"].get("retry-after") == ("2" if code == "endpoint_throttled" else None)
        assert is_valid(json.loads(response["body"]))


@pytest.mark.parametrize(
    "reply",
    [
        probabilities(0.1, 0.7, 0.2),
        probabilities(0.5, 0.5, threshold=0.75),
        probabilities(1, model=None, timings={"queue_ms": 0, "decode_ms": 4.25, "model_ms": 3.5}),
    ],
)
def test_each_answer_is_as_the_schema_says(endpoint: Endpoint, site: Site, internet: Internet, reply: Reply) -> None:
    endpoint.replies = [reply]
    site.pages["*"] = page(PNG)
    for event in (IMAGE, {"url": f"https://{HOST}/dog.png"}):
        value = json.loads(json.dumps(handler(event, Context())))
        assert is_valid(value, {"$ref": f"{SCHEMA['$id']}#/$defs/answer"}), value


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.pop("label"),
        lambda value: value.update(more=1),
        lambda value: value.update(threshold=1.5),
        lambda value: value["predictions"].clear(),
        lambda value: value["timings"].update(endpoint_ms=-1),
        lambda value: value.update(error={"code": "no_model", "message": "No.", "status": 503}),
    ],
)
def test_the_schema_refuses_other_values(endpoint: Endpoint, change: Callable[[Any], Any]) -> None:
    value = handler(IMAGE, Context())
    assert is_valid(value)
    change(value)
    assert not is_valid(value)


def test_the_schema_has_the_codes_and_statuses_of_the_code() -> None:
    error = SCHEMA["$defs"]["error"]["properties"]["error"]["properties"]
    assert error["code"]["enum"] == list(DOCUMENTED)
    assert error["status"]["enum"] == sorted({outcome.status for outcome in DOCUMENTED.values()})


def test_the_page_has_the_table_of_errors() -> None:
    assert {names(cells)[0]: tuple(cells[1:3]) for cells in rows("Codes")} == {
        code: (str(outcome.status), f"yes, {outcome.retry_after} s" if outcome.retry_after else "no")
        for code, outcome in DOCUMENTED.items()
    }


def test_the_page_has_the_fields_of_requests_and_answers() -> None:
    properties = SCHEMA["$defs"]["answer"]["properties"]
    fields = [*properties, *(f"timings.{name}" for name in properties["timings"]["properties"])]
    assert sorted(name for cells in rows("Answer") for name in names(cells)) == sorted(set(fields) - {"timings"})
    assert [name for cells in rows("Request") for name in names(cells)] == [*events.SOURCES, "top_k"]


def test_the_page_has_the_variables_that_the_function_reads() -> None:
    read = {
        node.value
        for file in (ROOT / "lambda" / "classify").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch("[A-Z][A-Z0-9_]*_[A-Z0-9_]+", node.value)
    }
    assert {name for cells in rows("Environment") for name in names(cells)} == read


def test_the_openapi_document_is_valid() -> None:
    validate(OPENAPI, base_uri=(CONTRACTS / "openapi.yaml").as_uri())


def test_the_openapi_document_has_the_statuses_of_the_code() -> None:
    statuses = {str(outcome.status) for outcome in DOCUMENTED.values()}
    responses = OPENAPI["paths"]["/classify"]["post"]["responses"]
    assert set(responses) == statuses | {"200", "default"}
    retried = {str(outcome.status) for outcome in DOCUMENTED.values() if outcome.retry_after}
    assert {status for status, response in responses.items() if "Unavailable" in str(response)} == retried


def examples() -> list[Any]:
    """(schema, value) of every example in the document, wherever it stands."""
    found = []

    def look(node: Any) -> None:
        if isinstance(node, dict):
            for example in node.get("examples", {}).values() if "schema" in node else ():
                found.append((node["schema"], example["value"]))
            for child in node.values():
                look(child)

    look(OPENAPI)
    return found


@pytest.mark.parametrize(("schema", "value"), examples())
def test_the_examples_of_the_openapi_document_hold(schema: dict[str, str], value: Any) -> None:
    name = schema["$ref"].rpartition("/")[2]
    local = OPENAPI["components"]["schemas"].get(name)
    assert is_valid(value, local or schema)
    if name == "Request":
        assert events.parse(value, 1000).source in value
    if name == "error":
        outcome = DOCUMENTED[value["error"]["code"]]
        assert value["error"]["status"] == outcome.status


@pytest.mark.parametrize(
    "request_",
    [
        {"url": "https://example.com/a.jpg"},
        {"s3_uri": "s3://bucket/a.jpg", "top_k": 1000},
        {"image": "aGk=", "top_k": None},
        {},
        {"top_k": 3},
        {"url": 7},
        {"image": ""},
        {"image": "aGk=", "url": "https://example.com"},
        {"image": "aGk=", "top_k": 0},
        {"image": "aGk=", "top_k": 1001},
        {"image": "aGk=", "top_k": "3"},
        {"image": "aGk=", "topk": 3},
    ],
)
def test_the_openapi_document_takes_what_the_function_takes(request_: Any) -> None:
    try:
        events.parse(request_, 1000)
        taken = True
    except ClassifyError:
        taken = False
    assert is_valid(request_, OPENAPI["components"]["schemas"]["Request"]) == taken
