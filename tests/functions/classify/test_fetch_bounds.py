"""The fetcher's bounds: bytes and seconds, against servers that lie, drip, hang or talk nonsense over real TLS."""

import socket
import ssl
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from classify.deadline import Deadline
from classify.errors import FetchFailed, FetchTimeout, TooLarge
from classify.fetch import fetch
from tests.functions.fakes import HOST, PNG, Internet, Page, Site, page

URL = f"https://{HOST}/dog.png"


def get(max_bytes: int = 100_000, seconds: float = 60.0) -> bytes:
    return fetch(URL, max_bytes, Deadline.after(seconds))


def raw(*pieces: bytes, pause: float = 0.0) -> Page:
    """Sends the pieces, waiting before each; stops when the test is over."""

    def serve(sock: ssl.SSLSocket, over: threading.Event) -> None:
        for piece in pieces:
            if over.wait(pause):
                return
            sock.sendall(piece)

    return serve


def dripping(head: bytes, pieces: Iterable[bytes]) -> Page:
    return raw(head, *pieces, pause=0.02)


def test_a_body_of_just_the_bound_is_taken_and_one_byte_more_is_not(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(bytes(1000))
    assert len(get(max_bytes=1000)) == 1000
    with pytest.raises(TooLarge):
        get(max_bytes=999)


def test_a_body_without_a_length_is_bounded_too(site: Site, internet: Internet) -> None:
    site.pages["*"] = raw(b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(50_000)] * 200)
    with pytest.raises(TooLarge):
        get()


def test_a_chunked_body_is_read_and_bounded(site: Site, internet: Internet) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.pages["/dog.png"] = raw(head, b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n")
    assert get() == b"abcde"
    site.pages["/dog.png"] = raw(head, *[b"C350\r\n" + bytes(50_000) + b"\r\n"] * 10)
    with pytest.raises(TooLarge):
        get()


def test_a_length_that_promises_too_much_fails(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(PNG, length=len(PNG) + 1)
    with pytest.raises(FetchFailed, match="middle"):
        get()


def test_a_length_that_is_too_short_ends_the_body_there(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(bytes(1000), length=10)
    assert get(max_bytes=100) == bytes(10)


class Flood:
    """A page that sends `head` and then `piece` again and again, 64 MB in all; `sent` counts what was taken of it."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self.head, self.piece, self.sent = head, piece, 0
        self.ended = threading.Event()

    def __call__(self, sock: ssl.SSLSocket, over: threading.Event) -> None:
        many = self.piece * (2**16 // len(self.piece) + 1)
        try:
            sock.sendall(self.head)
            while self.sent < 2**26:
                sock.sendall(many)
                self.sent += len(many)
        finally:
            self.ended.set()


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "piece", "error"),
    [
        (CHUNKED + b"-1\r\n", bytes(1000), FetchFailed),
        (CHUNKED + b"-ffffffff\r\n", bytes(1000), FetchFailed),
        (CHUNKED + b"7fffffff\r\n", bytes(1000), TooLarge),
        (CHUNKED, b"1;" + b"x" * 4000 + b"\r\na\r\n", FetchFailed),
        (CHUNKED + b"1;", b"x", FetchFailed),
        (CHUNKED + b"0", b"0", FetchFailed),
        (OK + b"Content-Length: 2147483647\r\n\r\n", bytes(1000), TooLarge),
        (OK + b"Content-Length: -1\r\n\r\n", bytes(1000), FetchFailed),
        (OK + b"\r\n", bytes(1000), TooLarge),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", FetchFailed),
        (b"", b"HTTP/1.1 100 Continue\r\nA: " + b"b" * 60_000 + b"\r\n\r\n", FetchFailed),
        (OK, b"A: " + b"b" * 60_000 + b"\r\n", FetchFailed),
        (OK + b"A: ", b"b", FetchFailed),
        (b"HTTP/1.1 ", b"2", FetchFailed),
        (b"HTTP/1.1 302 Found\r\nLocation: /dog.png\r\n", b"A: b\r\n", FetchFailed),
        (b"HTTP/1.1 302 Found\r\nLocation: /dog.png\r\n\r\n", b"body", FetchFailed),
    ],
)
def test_however_an_answer_is_framed_no_more_is_received_than_the_bound(
    site: Site, internet: Internet, head: bytes, piece: bytes, error: type[Exception]
) -> None:
    flood = site.pages["*"] = Flood(head, piece)
    with pytest.raises(error):
        get()
    assert flood.ended.wait(60)
    assert flood.sent < 2**25  # what the kernel's buffers hold of it


@pytest.mark.parametrize(
    "framing",
    [
        b"Transfer-Encoding: chunked\r\n\r\n+5\r\nabcde\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nabcde\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n 5\r\nabcde\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0_5\r\nabcde\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n\r\nabcde\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdefg\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        b"Transfer-Encoding: gzip\r\n\r\nabcde",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"Content-Length: +5\r\n\r\nabcde",
        b"Content-Length: 0_5\r\n\r\nabcde",
        b"Content-Length: 5, 5\r\n\r\nabcde",
    ],
)
def test_a_framing_that_is_not_that_of_http_fails(site: Site, internet: Internet, framing: bytes) -> None:
    site.pages["*"] = raw(OK + framing)
    with pytest.raises(FetchFailed):
        get()


@pytest.mark.parametrize(
    "framing",
    [
        b'Transfer-Encoding: Chunked\r\n\r\n005 ;a="b"\r\nabcde\r\n0;c\r\nTrailer: 1\r\n\r\n',
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcdefg",
        b"Content-Length:  5 \r\n\r\nabcde",
        b"\r\nabcde",
    ],
)
def test_a_framing_that_http_allows_is_read(site: Site, internet: Internet, framing: bytes) -> None:
    site.pages["*"] = raw(OK + framing)
    assert get() == b"abcde"


def test_a_head_that_makes_its_reader_fail_is_the_fetch_s_failure(
    site: Site, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(_: Any) -> None:
        raise RecursionError

    monkeypatch.setattr("http.client.HTTPResponse.begin", begin)
    site.pages["*"] = page(PNG)
    with pytest.raises(FetchFailed):
        get()


def test_a_compressed_body_is_not_unpacked(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(b"\x1f\x8b packed", "200 OK", "Content-Encoding: gzip")
    assert get() == b"\x1f\x8b packed"


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200],
)
def test_an_answer_that_is_no_http_fails(site: Site, internet: Internet, answer: bytes) -> None:
    site.pages["*"] = raw(answer)
    with pytest.raises(FetchFailed):
        get()


@pytest.mark.parametrize(
    "drip",
    [
        dripping(b"HTTP/1.1 200 OK\r\n\r\n", [b"x"] * 1000),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", [b"x"] * 1000),
        dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ", [b"x"] * 1000),
        dripping(b"HTTP/1.1 100 Continue\r\n\r\n", [b"HTTP/1.1 100 Continue\r\n\r\n"] * 1000),
        raw(b"late", pause=60),
    ],
    ids=["body", "body with length", "header", "continue", "silence"],
)
def test_a_server_that_drips_is_left_at_the_deadline(site: Site, internet: Internet, drip: Page) -> None:
    site.pages["*"] = drip
    with pytest.raises(FetchTimeout):
        get(seconds=0.4)


def test_a_server_that_drips_loses_its_connection_at_the_deadline(site: Site, internet: Internet) -> None:
    """The thread that was reading ends too: nothing is left behind in the sandbox."""
    lost = threading.Event()

    def drip(sock: ssl.SSLSocket, over: threading.Event) -> None:
        try:
            sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while not over.wait(0.01):
                sock.sendall(b"x")
        except OSError:
            lost.set()

    site.pages["*"] = drip
    before = threading.enumerate()
    with pytest.raises(FetchTimeout):
        get(seconds=0.4)
    assert lost.wait(60)
    assert none_is_left(before)


def test_a_handshake_that_ends_after_the_deadline_begins_no_request(
    site: Site, internet: Internet, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    class Slow:
        def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
            sock = client_tls.wrap_socket(*arguments, **options)
            over.wait(60)
            return sock

    monkeypatch.setattr("classify.fetch.tls_context", Slow)
    before = threading.enumerate()
    with pytest.raises(FetchTimeout):
        get(seconds=0.4)
    over.set()
    assert none_is_left(before)
    assert site.heads == []


def none_is_left(before: list[threading.Thread]) -> bool:
    """Whether all threads end that have begun since."""
    threads = [thread for thread in threading.enumerate() if thread not in before]
    for thread in threads:
        thread.join(60)
    return not any(thread.is_alive() for thread in threads)


def test_a_name_server_that_hangs_is_left_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(_: str) -> list[str]:
        over.wait(60)
        return []

    monkeypatch.setattr("classify.fetch.resolve", hang)
    with pytest.raises(FetchTimeout):
        get(seconds=0.2)
    over.set()


def test_a_peer_that_never_shakes_hands_is_left_at_the_deadline(internet: Internet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        internet.port = mute.getsockname()[1]
        with pytest.raises(FetchTimeout):
            get(seconds=0.2)


def test_no_time_left_is_a_timeout(internet: Internet) -> None:
    with pytest.raises(FetchTimeout):
        get(seconds=0)
    assert internet.dialed == []
