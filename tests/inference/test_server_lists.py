"""Several pictures in one request."""

import base64
import json
from typing import Any

import pytest

from tests.inference.tiny import Answer, Server, picture

COLOURS = ("red", "lime", "blue")


def listed(*bodies: bytes) -> dict[str, list[str]]:
    return {"images": [base64.b64encode(body).decode() for body in bodies]}


def send(server: Server, document: Any, **headers: str) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return server.classify(body, Content_Type="application/json; charset=utf-8", **headers)


def test_each_picture_of_a_list_gets_the_answer_that_it_gets_alone(server: Server) -> None:
    bodies = [picture(colour=colour) for colour in COLOURS]
    answer = send(server, listed(*bodies))
    alone = [server.classify(body).json["probabilities"] for body in bodies]
    assert answer.status == 200
    assert [result["probabilities"] for result in answer.json["results"]] == alone
    assert sorted(answer.json) == ["classes", "model", "results", "threshold", "timings"]
    assert answer.json["classes"] == ["red", "green", "blue"]


def test_sixteen_are_taken_and_seventeen_are_not(server: Server) -> None:
    assert len(send(server, listed(*[picture()] * 16)).json["results"]) == 16
    answer = send(server, listed(*[picture()] * 17))
    assert (answer.status, answer.code) == (413, "too_large")
    assert "at most 16" in answer.json["error"]["message"]


def test_a_bad_picture_does_not_spoil_the_others(server: Server) -> None:
    document = listed(b"none", picture(), picture("BMP"))
    document["images"].append("not base64!")
    results = send(server, document).json["results"]
    assert [result.get("error", {}).get("code") for result in results] == [
        "not_an_image",
        None,
        "unsupported_image",
        "not_an_image",
    ]
    assert "base64" in results[3]["error"]["message"]


def test_a_list_as_csv_is_a_line_a_picture_and_an_empty_one_for_a_bad_picture(server: Server) -> None:
    answer = send(server, listed(picture(), b"none", picture()), Accept="text/csv")
    first, empty, second, rest = answer.body.decode().split("\n")
    assert [float(value) for value in first.split(",")] == server.classify(picture()).json["probabilities"]
    assert (first, empty, rest) == (second, "", "")


@pytest.mark.parametrize(
    "document",
    [b"", b"no JSON", b"\xff", b"[" * 100_000, b"1" * 5000, [], {}, {"images": []}, {"images": "abc"}, {"images": [1]}],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_list_of_pictures_is_explained(server: Server, document: Any) -> None:
    answer = send(server, document)
    assert (answer.status, answer.code) == (400, "invalid_request")
    assert '{"images": ["<base64>", ...]}' in answer.json["error"]["message"]


def test_the_limit_of_bytes_holds_for_lists_too(server: Server) -> None:
    answer = send(server, b" " * (6 * 1024 * 1024 + 1))
    assert (answer.status, answer.code) == (413, "too_large")
