"""Asking the function: boto3 against a Lambda API on loopback that answers as told."""

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kennel.aws import client
from kennel.errors import KennelError
from kennel.invoke import FILE_LIMIT, PAYLOAD_LIMIT, Refused, classify, payload, show_answer
from tests.cli.invoke.test_reduce import noise
from tests.cli.trees import png

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:classify:live"
GOOD = {
    "probabilities": [0.1, 0.9],
    "predictions": [{"label": "dog", "probability": 0.9}],
    "label": "dog",
    "threshold": 0.41,
    "model": "m",
    "request_id": "r",
}


class Lambda(HTTPServer):
    """Answers every Invoke with `answer` (status, body, headers) and remembers the last request."""

    answer: tuple[int, bytes, dict[str, str]] = (200, b"{}", {})
    path, body = "", b""


class _Handler(BaseHTTPRequestHandler):
    server: Lambda

    def do_POST(self) -> None:
        self.server.path = self.path
        self.server.body = self.rfile.read(int(self.headers["Content-Length"]))
        status, body, headers = self.server.answer
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def function(aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lambda]:
    server = Lambda(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(function: Lambda) -> Callable[..., Any]:
    def asked(body: Any, status: int = 200, **headers: str) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        function.answer = (status, raw, {name.replace("_", "-"): value for name, value in headers.items()})
        return classify(client("lambda"), FUNCTION, {"url": "https://example.org/x.jpg"})

    return asked


def test_the_alias_is_asked_and_its_answer_returned(ask: Callable[..., Any], function: Lambda) -> None:
    assert ask(GOOD) == GOOD
    assert function.path.endswith("function%3Aclassify%3Alive/invocations")
    assert json.loads(function.body) == {"url": "https://example.org/x.jpg"}


def test_an_error_of_the_functions_own_is_said_with_its_code(ask: Callable[..., Any]) -> None:
    with pytest.raises(Refused, match=r"^No model is released yet \(no_model, request 7\)\.$") as caught:
        ask({"error": {"code": "no_model", "message": "No model is released yet.", "status": 503}, "request_id": "7"})
    assert caught.value.code == "no_model"


def test_a_crash_of_the_function_is_said_without_its_trace(ask: Callable[..., Any]) -> None:
    with pytest.raises(KennelError, match=r"The function broke: boom; its log says more\."):
        ask({"errorMessage": "boom", "stackTrace": ["secret"]}, X_Amz_Function_Error="Unhandled")


@pytest.mark.parametrize("body", [b"not json", b"[]", b"", b'{"odd": 1}', b'{"predictions": []}'])
def test_an_answer_of_another_shape_is_refused(ask: Callable[..., Any], body: bytes) -> None:
    with pytest.raises(KennelError, match=r"something else than a JSON object|has no predictions"):
        ask(body)


def test_an_error_of_lambda_itself_is_a_sentence(ask: Callable[..., Any]) -> None:
    with pytest.raises(KennelError, match=r"AWS refused Invoke: gone \(ResourceNotFoundException\)\."):
        ask({"Message": "gone"}, 404, X_Amzn_ErrorType="ResourceNotFoundException")


def test_a_url_and_an_s3_address_travel_as_they_are() -> None:
    assert payload("https://example.org/x.jpg", 3) == {"url": "https://example.org/x.jpg", "top_k": 3}
    assert payload("s3://bucket/photos/x.jpg") == {"s3_uri": "s3://bucket/photos/x.jpg"}


def test_a_file_travels_in_base64(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png())
    assert base64.b64decode(payload(str(tmp_path / "x.png"))["image"]) == png()


def test_the_largest_file_just_fits_into_a_request(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(bytes(FILE_LIMIT))
    assert PAYLOAD_LIMIT - 2048 < len(json.dumps(payload(str(tmp_path / "x.jpg"), 1000))) <= PAYLOAD_LIMIT


def test_a_larger_file_that_is_no_picture_is_refused_with_the_limit_and_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(bytes(FILE_LIMIT + 1))
    with pytest.raises(KennelError, match=r"4\.7 MB; a request to Lambda holds 4\.7 MB, .* photos/ in the data bucket"):
        payload(str(tmp_path / "x.jpg"))


def test_a_larger_picture_is_sent_reduced_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise(1400, 1300).save(tmp_path / "x.png", compress_level=1)
    event = payload(str(tmp_path / "x.png"), 3)
    sent = Image.open(io.BytesIO(base64.b64decode(event["image"])))
    assert (sent.format, sent.size, event["top_k"]) == ("JPEG", (1103, 1024), 3)
    said = capsys.readouterr()
    assert said.err.endswith(
        "has 5.5 MB; a request to Lambda holds 4.7 MB: it is sent as a JPEG of 1103 x 1024 pixels.\n"
    )
    assert said.out == ""


@pytest.mark.parametrize(("name", "says"), [("gone.jpg", "does not exist"), (".", "is no file"), ("e.jpg", "is empty")])
def test_what_is_no_picture_file_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "e.jpg").touch()
    with pytest.raises(KennelError, match=says):
        payload(str(tmp_path / name))


def shown(capsys: pytest.CaptureFixture[str], *, as_json: bool = False, **changes: Any) -> list[str]:
    show_answer({**GOOD, **changes}, as_json=as_json)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_an_answer_is_a_line_a_class_and_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    first, last = shown(capsys)
    assert first.split() == ["dog", "90.0%", "█" * 22]
    assert last == "model m"


def unsure(share: float, threshold: float, label: str = "Beagle") -> dict[str, Any]:
    predictions = [{"label": label, "probability": share}, {"label": "Pug", "probability": share / 2}]
    return {"predictions": predictions, "label": None, "threshold": threshold}


def test_a_picture_of_something_else_is_said_to_be_none_of_these(capsys: pytest.CaptureFixture[str]) -> None:
    known = {"score": 0.41, "threshold": 0.59, "is_known": False}
    first, *_ = shown(capsys, label=None, verdict="none_of_these", known=known)
    assert first == "None of these (likeness 41 %, below 59 %; best guess dog)"


@pytest.mark.parametrize("more", [{}, {"verdict": "not_sure", "known": None}], ids=["older function", "function"])
def test_a_best_class_below_the_threshold_is_not_sure(more: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    first, *classes, _ = shown(capsys, **unsure(0.2301, 0.41), **more)
    assert first == "Not sure (best guess Beagle 23 %, below 41 %)"
    assert [line.split()[0] for line in classes] == ["Beagle", "Pug"]


@pytest.mark.parametrize(
    ("share", "threshold", "says"),
    [
        (0.406, 0.4099, "40.6 %, below 41.0 %"),
        (0.99, 1, "99 %, below 100 %"),
        (0.4, 0.4 + 1e-9, "40.0000000 %, below 40.0000001 %"),
        (0.4, 0.4000000000000001, "40.00000000000000 %, below 40.00000000000001 %"),
    ],
)
def test_it_is_said_with_as_many_digits_as_tell_the_two_apart(
    share: float, threshold: float, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in shown(capsys, **unsure(share, threshold))[0]


def test_a_class_may_be_named_as_markup_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = shown(capsys, **unsure(0.2, 0.4, label="[bold]x[/]"))
    assert "best guess [bold]x[/] 20 %" in first
    assert second.startswith("[bold]x[/] ")


def test_for_programs_the_answer_passes_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads("\n".join(shown(capsys, as_json=True, **unsure(0.2, 0.4)))) == {**GOOD, **unsure(0.2, 0.4)}


def test_an_answer_of_an_older_function_needs_no_label(capsys: pytest.CaptureFixture[str]) -> None:
    show_answer({name: value for name, value in GOOD.items() if name not in ("label", "threshold")}, as_json=False)
    assert capsys.readouterr().out.startswith("dog")


@pytest.mark.parametrize("kind", ["TIFF", "BMP"])
def test_a_kind_that_is_not_served_is_sent_as_a_jpeg(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "photo", kind)
    sent = base64.b64decode(payload(str(tmp_path / "photo"))["image"])
    assert Image.open(io.BytesIO(sent)).format == "JPEG"
