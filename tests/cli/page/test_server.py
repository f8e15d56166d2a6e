"""The page's server as a program sees it: what it passes on, and whom it sends away."""

import re
import socket

import pytest
import requests

from kennel.errors import KennelError
from kennel.invoke import FILE_LIMIT
from kennel.page.server import served
from kennel.page.snippets import Target
from tests.cli.page.world import GOOD, PageWorld
from tests.cli.trees import png


def raw(page: PageWorld, request: str, body: bytes = b"", *, hang_up: bool = False) -> bytes:
    """The answer to a request written by hand, until the server hangs up."""
    with socket.create_connection(("127.0.0.1", page.port), timeout=60) as one:
        one.sendall(request.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        if hang_up:
            one.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: one.recv(65536), b""))


def head(page: PageWorld, length: str) -> str:
    host = f"127.0.0.1:{page.port}"
    return f"POST {page.path}/classify HTTP/1.1\nHost: {host}\nOrigin: http://{host}\nContent-Type: image/png\n{length}"


def test_a_picture_reaches_the_function_and_its_answer_comes_back_as_it_is(page: PageWorld) -> None:
    answer = page.post(png())
    assert (answer.status_code, answer.json()) == (200, GOOD)
    assert page.pictures == [png()]


@pytest.mark.parametrize("event", [{"url": "https://example.org/x.jpg"}, {"s3_uri": "s3://bucket/photos/x.jpg"}])
def test_an_address_travels_as_it_is(page: PageWorld, event: dict[str, str]) -> None:
    assert page.post(event).status_code == 200
    assert page.asked == [event]


def test_the_time_that_the_function_took_as_seen_from_here_is_told(page: PageWorld) -> None:
    page.delay = 0.05
    told = re.fullmatch(r"invoke;dur=([\d.]+)", page.post(png()).headers["Server-Timing"])
    assert told and 50 <= float(told[1]) < 5000


def test_an_error_of_the_functions_own_is_an_answer_like_any_other(page: PageWorld) -> None:
    page.answer = {"error": {"code": "no_model", "message": "No model is released yet.", "status": 503}}
    answer = page.post(png())
    assert (answer.status_code, answer.json()) == (200, page.answer)


def test_a_function_that_breaks_is_said_in_a_sentence(page: PageWorld) -> None:
    page.answer, page.error = {"errorMessage": "boom"}, "Unhandled"
    answer = page.post(png())
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "not_asked"
    assert answer.json()["error"]["message"].startswith("The function broke: ")


def test_an_aws_that_is_gone_is_said_in_a_sentence(page: PageWorld) -> None:
    target = Target("Dev", "arn:aws:lambda:us-east-1:123456789012:function:gone:live", page.target.client)
    with served(target) as url:
        answer = requests.post(f"{url}classify", png(), headers={"Origin": url[: url.index("/", 7)]}, timeout=60)
    assert answer.status_code == 502
    assert "AWS refused Invoke" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "localhost.evil:{port}", "[::1]", ""],
)
@pytest.mark.parametrize("path", ["/", "/snippets?source=url&value=x", "/classify"])
def test_a_name_that_leads_here_by_rebinding_is_refused(page: PageWorld, host: str, path: str) -> None:
    host = host.format(port=page.port)
    method = "POST" if path == "/classify" else "GET"
    answer = raw(
        page, f"{method} {page.path}{path} HTTP/1.1\nHost: {host}\nOrigin: http://{host}\nContent-Length: 1", b"x"
    )
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"foreign_host" in answer
    assert page.asked == []


def test_through_a_forwarded_port_the_page_works(page: PageWorld) -> None:
    assert page.get("", Host="localhost:8000").status_code == 200
    assert page.post(png(), Host="localhost:8000", Origin="http://localhost:8000").status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://localhost:1", "http://127.0.0.1", "https://127.0.0.1:{port}"]
)
def test_a_post_from_another_site_is_refused(page: PageWorld, origin: str) -> None:
    answer = page.post(png(), Origin=origin.format(port=page.port))
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin")
    assert page.asked == []


def test_a_picture_that_no_request_holds_is_refused_before_it_is_read(page: PageWorld) -> None:
    answer = raw(page, head(page, f"Content-Length: {FILE_LIMIT + 1}"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"A request to Lambda holds 4.7 MB" in answer


def test_the_largest_picture_that_is_taken_fits_into_a_request_to_lambda(page: PageWorld) -> None:
    assert page.post(bytes(FILE_LIMIT)).status_code == 200


@pytest.mark.parametrize("length", ["Transfer-Encoding: chunked", "Content-Length: -1", "Content-Length: ten"])
def test_a_body_of_unknown_length_is_refused(page: PageWorld, length: str) -> None:
    assert raw(page, head(page, length)).startswith(b"HTTP/1.1 411")


def test_half_a_picture_asks_nothing(page: PageWorld) -> None:
    answer = raw(page, head(page, "Content-Length: 100"), b"x" * 50, hang_up=True)
    assert answer.startswith(b"HTTP/1.1 400")
    assert page.asked == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000])
def test_a_body_that_is_no_json_object_asks_nothing(page: PageWorld, body: bytes) -> None:
    assert page.post(body, "application/json").status_code == 400
    assert page.asked == []


@pytest.mark.parametrize("path", ["/handler.py", "/../handler.py", "/static/page.js", "/page.html%00", "//etc/passwd"])
def test_nothing_is_served_but_the_page(page: PageWorld, path: str) -> None:
    assert raw(page, f"GET {page.path}{path} HTTP/1.0\nHost: localhost:{page.port}").startswith(b"HTTP/1.1 404")


def test_all_that_the_page_names_is_served_and_nothing_comes_from_elsewhere(page: PageWorld) -> None:
    html = page.get("").text
    named = [*re.findall(r'(?:src|href)="([^"]+)"', html), "picture.js", "show.js"]
    assert sorted(named) == ["icon.svg", "page.css", "page.js", "picture.js", "report.css", "show.js"]
    assert [page.get(name).status_code for name in named] == [200] * len(named)


def test_the_browser_is_told_to_keep_nothing_and_to_speak_to_nobody_else(page: PageWorld) -> None:
    for answer in (page.get(""), page.post(png())):
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert "connect-src 'self'; " in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_where_a_port_is_taken_one_sentence_says_so(page: PageWorld) -> None:
    with (
        pytest.raises(KennelError, match=rf"^Port {page.port} cannot be taken \(.+\): choose another"),
        served(page.target, page.port),
    ):
        pass


def test_the_page_ends_with_its_block(page: PageWorld) -> None:
    with served(page.target) as url:
        assert requests.get(url, timeout=60).status_code == 200
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=60)


@pytest.mark.parametrize("path", ["", "about", "snippets?source=url&value=x", "page.js"])
def test_who_was_not_told_the_whole_address_finds_nothing(page: PageWorld, path: str) -> None:
    """Any user of this machine can ask on loopback; the page shows keys and asks with the operator's."""
    for prefix in ("/", f"{page.path[:-1]}/", f"{page.path}x/", "/x/", "//"):
        assert raw(page, f"GET {prefix}{path} HTTP/1.0\nHost: localhost:{page.port}").startswith(b"HTTP/1.1 404")
    assert raw(page, f"GET {page.path}/{path} HTTP/1.0\nHost: localhost:{page.port}").startswith(b"HTTP/1.1 200")


def test_nor_does_the_function_answer_them(page: PageWorld) -> None:
    answer = requests.post(f"{page.origin}/classify", png(), headers={"Origin": page.origin}, timeout=60)
    assert answer.status_code == 404
    assert page.asked == []


def test_each_page_has_an_address_of_its_own(page: PageWorld) -> None:
    with served(page.target) as other:
        assert len(page.path) == len("/") + 22  # 128 bits
        assert not other.endswith(f"{page.path}/")
