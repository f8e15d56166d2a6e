"""The fetcher's bounds: bytes and seconds, against servers that lie, drip, hang or talk nonsense over real TLS."""

import socket
import ssl
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from classify.deadline import Deadline
from classify.errors import FetchFailed, FetchTimeout, TooLarge
from classify.fetch import Fetcher

from tests.functions.worlds import HOST, PNG, PUBLIC, Internet, Page, Site, page

URL = f"https://{HOST}/dog.png"


def fetch(internet: Internet, url: str = URL, max_bytes: int = 100_000, seconds: float = 5.0) -> bytes:
    return internet.fetcher().fetch(url, max_bytes, Deadline.after(seconds))


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
    assert len(fetch(internet, max_bytes=1000)) == 1000
    with pytest.raises(TooLarge):
        fetch(internet, max_bytes=999)


def test_a_body_without_a_length_is_bounded_too(site: Site, internet: Internet) -> None:
    site.pages["*"] = raw(b"HTTP/1.1 200 OK\r\n\r\n", *[bytes(50_000)] * 200)
    with pytest.raises(TooLarge):
        fetch(internet)


def test_a_chunked_body_is_read_and_bounded(site: Site, internet: Internet) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.pages["/dog.png"] = raw(head, b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n")
    assert fetch(internet) == b"abcde"
    site.pages["/dog.png"] = raw(head, *[b"C350\r\n" + bytes(50_000) + b"\r\n"] * 10)
    with pytest.raises(TooLarge):
        fetch(internet)


def test_a_length_that_promises_too_much_fails(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(PNG, length=len(PNG) + 1)
    with pytest.raises(FetchFailed, match="middle"):
        fetch(internet)


def test_a_length_that_is_too_short_ends_the_body_there(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(bytes(1000), length=10)
    assert fetch(internet, max_bytes=100) == bytes(10)


def test_a_compressed_body_is_not_unpacked(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(b"\x1f\x8b packed", "200 OK", "Content-Encoding: gzip")
    assert fetch(internet) == b"\x1f\x8b packed"


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200],
)
def test_an_answer_that_is_no_http_fails(site: Site, internet: Internet, answer: bytes) -> None:
    site.pages["*"] = raw(answer)
    with pytest.raises(FetchFailed):
        fetch(internet)


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
    started = time.monotonic()
    with pytest.raises(FetchTimeout):
        fetch(internet, seconds=0.4)
    assert time.monotonic() - started < 2


def test_a_name_server_that_hangs_is_left_at_the_deadline(internet: Internet) -> None:
    over = threading.Event()

    def hang(_: str) -> list[str]:
        over.wait(20)
        return []

    started = time.monotonic()
    with pytest.raises(FetchTimeout):
        Fetcher(hang, internet.connect).fetch(URL, 1000, Deadline.after(0.2))
    assert time.monotonic() - started < 2
    over.set()


def test_a_peer_that_never_shakes_hands_is_left_at_the_deadline(certificate: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        internet = Internet(
            mute.getsockname()[1], ssl.create_default_context(cafile=str(certificate)), {HOST: [[PUBLIC]]}
        )
        with pytest.raises(FetchTimeout):
            fetch(internet, seconds=0.2)


def test_no_time_left_is_a_timeout(internet: Internet) -> None:
    with pytest.raises(FetchTimeout):
        fetch(internet, seconds=0)
    assert internet.dialed == []
