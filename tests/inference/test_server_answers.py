"""Each status of the server, from a real process over loopback."""

import io
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.inference.tiny import FACTS, Server, answer_on, picture, start, upload, write_model

COLOURS = ("red", "lime", "blue")  # of the classes red, green, blue


def test_a_ping_is_200_without_a_body(server: Server) -> None:
    answer = server.ask("GET", "/ping")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_picture_of_each_kind_is_classified(server: Server, kind: str, index: int) -> None:
    answer = server.classify(picture(kind, COLOURS[index]), Content_Type=f"image/{kind.lower()}")
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/json"
    assert sorted(answer.json) == ["classes", "known", "model", "probabilities", "threshold", "timings"]
    probabilities = answer.json["probabilities"]
    assert answer.json["classes"] == ["red", "green", "blue"]
    assert probabilities.index(max(probabilities)) == index
    assert sum(probabilities) == pytest.approx(1)
    assert min(probabilities) > 0


def test_an_answer_names_the_model_package(server: Server) -> None:
    assert server.classify(picture()).json["model"] == "arn:aws:sagemaker:::model-package/kennel-dev/7"


def test_without_an_abstention_there_is_no_threshold(server: Server) -> None:
    assert server.classify(picture()).json["threshold"] is None


def test_temperature_and_threshold_of_the_artifact_are_in_the_answer_and_a_passport_beside_it_is_not_read(
    launch: Callable[..., Server], server: Server, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "model")
    more = {"temperature": 3.0, "abstain": {"threshold": 0.41, "coverage": 0.95}, "calibration": {}, "unheard of": [1]}
    (folder / "model.json").write_text(json.dumps(FACTS | more))
    (folder / "passport.json").write_text("no JSON")
    cooled = launch(tmp_path).classify(picture()).json
    plain = np.array(server.classify(picture()).json["probabilities"])
    assert cooled["threshold"] == 0.41
    assert cooled["probabilities"] == pytest.approx(plain ** (1 / 3) / (plain ** (1 / 3)).sum())


def test_a_picture_is_known_if_it_resembles_the_reference_and_an_early_artifact_cannot_tell(
    launch: Callable[..., Server], server: Server, tmp_path: Path
) -> None:
    write_model(tmp_path / "model", known={"file": "known.npy", "neighbours": 1, "threshold": 0.9})
    knowing = launch(tmp_path)
    red, grey = (knowing.classify(picture(colour=colour)).json["known"] for colour in ("red", "#ff8000"))
    assert red == {"score": pytest.approx(1, abs=1e-3), "threshold": 0.9, "is_known": True}
    assert grey == {"score": pytest.approx(0.816, abs=0.01), "threshold": 0.9, "is_known": False}
    line = knowing.classify(picture(), Accept="text/csv").body.decode().strip().split(",")
    assert [float(value) for value in line[3:]] == [red["score"], 1]
    assert server.classify(picture()).json["known"] is None


def test_a_reference_that_the_network_has_no_embedding_for_ends_the_start(tmp_path: Path) -> None:
    known = {"file": "known.npy", "neighbours": 1, "threshold": 0.9}
    write_model(tmp_path / "model", known=known)
    np.save(tmp_path / "model" / "known.npy", np.eye(4, dtype=np.float16))
    out, err = (process := start(tmp_path)).communicate(timeout=60)
    assert process.returncode == 1
    assert "The reference of known pictures has 4 dimensions, but model.xml has no such embedding." in out + err


def test_the_model_is_empty_when_nobody_named_it(launch: Callable[..., Server]) -> None:
    assert launch().classify(picture()).json["model"] == ""


@pytest.mark.parametrize(
    "kind", ["", "image/jpeg", "IMAGE/PNG; charset=x", "application/x-image", "application/octet-stream"]
)
def test_the_bytes_decide_whatever_supported_content_type_they_come_with(server: Server, kind: str) -> None:
    assert server.classify(picture("WEBP"), **({"Content_Type": kind} if kind else {})).status == 200


@pytest.mark.parametrize(
    "accept", ["application/json", "*/*", "text/csv;q=0.1, application/*", "Application/JSON", "text/csv, */*", ""]
)
def test_json_may_be_accepted_in_several_words(server: Server, accept: str) -> None:
    answer = server.classify(picture(), Accept=accept)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize("accept", ["text/csv", "text/*", "application/json;q=0.5, TEXT/CSV", "image/png, text/csv"])
def test_csv_is_one_line_of_the_same_probabilities(server: Server, accept: str) -> None:
    answer = server.classify(picture(), Accept=accept)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    line, rest = answer.body.decode().split("\n")
    assert [float(value) for value in line.split(",")] == server.classify(picture()).json["probabilities"]
    assert rest == ""


@pytest.mark.parametrize("accept", ["image/png", "text/html, application/xml", "application/json;q=0"])
def test_an_answer_in_another_format_is_not_acceptable(server: Server, accept: str) -> None:
    answer = server.classify(picture(), Accept=accept)
    assert (answer.status, answer.code) == (406, "not_acceptable")


def test_an_answer_says_where_its_time_went(server: Server) -> None:
    answer = server.classify(picture())
    timings = answer.json["timings"]
    assert sorted(timings) == ["decode_ms", "model_ms", "queue_ms"]
    assert timings["decode_ms"] > 0 < timings["model_ms"]
    assert answer.headers["server-timing"] == (
        f"queue;dur={timings['queue_ms']:g}, decode;dur={timings['decode_ms']:g}, model;dur={timings['model_ms']:g}"
    )


def test_a_refusal_and_a_wrong_method_have_timings_too(server: Server) -> None:
    refused = server.classify(b"x" * 1000).headers["server-timing"]
    assert refused.startswith("queue;dur=")
    assert not refused.endswith("model;dur=1")
    assert server.ask("GET", "/invocations").headers["server-timing"] == "queue;dur=0, decode;dur=0, model;dur=0"


@pytest.mark.parametrize("kind", ["application/xml", "text/plain", "multipart/form-data; boundary=x"])
def test_a_body_that_says_it_is_no_picture_is_refused(server: Server, kind: str) -> None:
    answer = server.classify(picture(), Content_Type=kind)
    assert (answer.status, answer.code) == (415, "unsupported_image")
    assert kind.split(";")[0] in answer.json["error"]["message"]


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO"])
def test_a_picture_of_another_kind_is_415(server: Server, kind: str) -> None:
    answer = server.classify(picture(kind))
    assert (answer.status, answer.code) == (415, "unsupported_image")
    assert kind in answer.json["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"hello", b"\xff\xd8\xff", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 99])
def test_what_is_no_picture_is_400(server: Server, body: bytes) -> None:
    answer = server.classify(body)
    assert (answer.status, answer.code) == (400, "not_an_image")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_truncated_picture_is_400(server: Server, kind: str) -> None:
    noise = Image.effect_noise((90, 90), 80)
    file = io.BytesIO()
    noise.save(file, kind)
    answer = server.classify(file.getvalue()[: len(file.getvalue()) // 2])
    assert (answer.status, answer.code) == (400, "not_an_image")


def test_sixty_megapixels_are_too_large(server: Server) -> None:
    body = picture("PNG", "white", (10_000, 6_000), "1")
    assert len(body) < 100_000
    answer = server.classify(body)
    assert (answer.status, answer.code) == (413, "too_large")
    assert "50000000 pixels" in answer.json["error"]["message"]


def test_a_picture_of_one_line_that_would_grow_to_gigabytes_is_refused(server: Server) -> None:
    answer = server.classify(picture("PNG", "white", (2_000_000, 1), "1"))
    assert (answer.status, answer.code) == (413, "too_large")


def test_a_declared_length_beyond_the_limit_is_refused_before_the_body_is_sent(server: Server) -> None:
    with upload(server.port, bytes(6 * 1024 * 1024 + 1), part=0) as connection:
        answer = answer_on(connection)
    assert (answer.status, answer.code) == (413, "too_large")


def test_a_body_that_grows_beyond_the_limit_in_chunks_is_refused(server: Server) -> None:
    answer = server.classify(iter([b"x" * 1024 * 1024] * 7))
    assert (answer.status, answer.code) == (413, "too_large")
    assert "6291456 bytes" in answer.json["error"]["message"]


def test_a_body_of_exactly_the_limit_is_read(server: Server) -> None:
    body = picture()
    assert server.classify(body + b"\0" * (6 * 1024 * 1024 - len(body))).status == 200


def test_a_picture_in_chunks_is_classified(server: Server) -> None:
    body = picture()
    assert server.classify(iter([body[:7], body[7:300], body[300:]])).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("POST", "/invocations/x", 404, "not_found"),
        ("GET", "/invocations", 405, "method_not_allowed"),
        ("DELETE", "/ping", 405, "method_not_allowed"),
    ],
)
def test_other_paths_and_methods_are_refused_in_json(
    server: Server, method: str, path: str, status: int, code: str
) -> None:
    answer = server.ask(method, path)
    assert (answer.status, answer.code) == (status, code)
    assert ("allow" in answer.headers) == (status == 405)


def test_garbage_on_the_wire_is_400_and_the_server_lives(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert answer_on(connection).status == 400
    assert server.classify(picture()).status == 200


@pytest.mark.parametrize("part", [0, 100])
def test_half_a_request_leaves_the_server_as_it_was(server: Server, part: int) -> None:
    upload(server.port, picture(), part).close()
    assert server.classify(picture()).status == 200


def test_a_picture_that_comes_a_few_bytes_at_a_time_is_classified(server: Server) -> None:
    body = picture()
    with upload(server.port, body, 0) as connection:
        for start in range(0, len(body), 100):
            connection.sendall(body[start : start + 100])
            time.sleep(0.01)
        assert answer_on(connection).status == 200


def test_each_of_many_callers_at_once_gets_its_own_answer(server: Server) -> None:
    def index_of(colour: str) -> int:
        probabilities = server.classify(picture(colour=colour)).json["probabilities"]
        return int(probabilities.index(max(probabilities)))

    with ThreadPoolExecutor(12) as callers:
        answers = list(callers.map(index_of, COLOURS * 12))
    assert answers == [0, 1, 2] * 12


def test_the_log_tells_each_request_in_one_json_line_and_no_payload(launch: Callable[..., Server]) -> None:
    server = launch()
    server.ask("GET", "/ping")
    body = picture("GIF")
    server.classify(body)
    server.classify(b"a secret that is no picture\n")
    server.classify(picture("PNG", "white", (10_000, 10_000), "1"))  # of which Pillow warns on standard error
    server.classify(picture("WEBP", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))  # and of this
    server.ask("GET", "/a%0Ab")
    status, lines = server.stop()
    requests = [line for line in lines if line["event"] == "request"]
    assert status == 0
    assert [(line["path"], line["status"]) for line in requests] == [
        ("/invocations", 200),
        ("/invocations", 400),
        ("/invocations", 413),
        ("/invocations", 200),
        ("/a\nb", 404),
    ]
    assert requests[0]["bytes"] == len(body)
    assert requests[0]["ms"] > 0
    assert "secret" not in json.dumps(lines)
