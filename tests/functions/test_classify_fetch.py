"""The guarded fetcher against a real TLS server; only name server and network are pretended."""

import ssl
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from classify.deadline import Deadline
from classify.errors import FetchFailed, FetchTimeout, Problem, TooLarge, UrlRefused
from classify.fetch import Fetcher

from tests.functions.worlds import HOST, OTHER_PUBLIC, PNG, PUBLIC, Internet, Page, Site, moved, page

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


def test_a_picture_behind_a_url_is_fetched(site: Site, internet: Internet) -> None:
    site.pages["/dog.png?size=1"] = page(PNG)
    assert fetch(internet, f"{URL}?size=1") == PNG


def test_the_request_says_no_more_than_needed(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(PNG)
    fetch(internet)
    lines = site.heads[0].decode().split("\r\n")
    assert lines[0] == "GET /dog.png HTTP/1.1"
    assert sorted(lines[1:-2]) == [
        "Accept-Encoding: identity",
        "Accept: image/*",
        "Connection: close",
        f"Host: {HOST}",
        "User-Agent: Kennel",
    ]


def test_an_international_name_is_asked_for_as_dns_knows_it(site: Site, internet: Internet) -> None:
    internet.names["xn--hndchen-n2a.example"] = [[PUBLIC]]
    site.pages["/ü"] = site.pages["*"] = page(PNG)
    assert fetch(internet, "https://Hündchen.example/ü") == PNG
    assert internet.asked == ["xn--hndchen-n2a.example"]


def test_the_connection_goes_to_the_address_that_was_checked(site: Site, internet: Internet) -> None:
    """A name that turns inward between check and connection is never asked for again."""
    site.pages["*"] = page(PNG)
    internet.names[HOST] = [[PUBLIC], ["127.0.0.1"]]
    assert fetch(internet) == PNG
    assert (internet.asked, internet.dialed) == ([HOST], [PUBLIC])


def test_a_name_that_turned_inward_is_refused_on_the_next_redirect(site: Site, internet: Internet) -> None:
    site.pages["/dog.png"] = moved("/other.png")
    internet.names[HOST] = [[PUBLIC], ["169.254.169.254"]]
    with pytest.raises(UrlRefused):
        fetch(internet)
    assert internet.dialed == [PUBLIC]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::1"],
        ["fd00:ec2::254"],
        ["::ffff:10.0.0.1"],
        ["64:ff9b::a00:1"],
    ],
)
def test_a_name_with_an_inner_address_is_refused_without_a_connection(internet: Internet, addresses: list[str]) -> None:
    internet.names[HOST] = [addresses]
    with pytest.raises(UrlRefused):
        fetch(internet)
    assert internet.dialed == []


def test_one_inner_address_among_public_ones_is_enough_to_refuse(internet: Internet) -> None:
    internet.names[HOST] = [[PUBLIC, "10.0.0.1"]]
    with pytest.raises(UrlRefused):
        fetch(internet)
    assert internet.dialed == []


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest/meta-data/"])
def test_an_inner_address_in_the_url_is_refused_by_the_real_resolver(url: str) -> None:
    with pytest.raises(UrlRefused):
        Fetcher().fetch(url, 1000, Deadline.after(5))


def test_localhost_is_refused_by_the_real_resolver() -> None:
    with pytest.raises(UrlRefused):
        Fetcher().fetch("https://localhost/", 1000, Deadline.after(5))


@pytest.mark.parametrize(
    "location",
    [
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://2130706433/",
        f"http://{HOST}/dog.png",
        "file:///etc/passwd",
        f"https://user:word@{HOST}/",
        f"https://{HOST}:8443/",
        "//127.0.0.1/",
        "https://[",
    ],
)
def test_a_redirect_is_held_to_the_same_rules(site: Site, internet: Internet, location: str) -> None:
    internet.names |= {"127.0.0.1": [["127.0.0.1"]], "169.254.169.254": [["169.254.169.254"]], "::1": [["::1"]]}
    site.pages["/dog.png"] = moved(location)
    with pytest.raises(UrlRefused):
        fetch(internet)
    assert internet.dialed == [PUBLIC]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_to_another_public_host_is_followed(site: Site, internet: Internet, status: str) -> None:
    site.pages |= {"/dog.png": moved("https://elsewhere.example/cat.png", status), "/cat.png": page(PNG)}
    assert fetch(internet) == PNG
    assert internet.asked == [HOST, "elsewhere.example"]
    assert b"Host: elsewhere.example\r\n" in site.heads[1]


def test_three_redirects_are_followed_and_a_fourth_is_not(site: Site, internet: Internet) -> None:
    site.pages |= {f"/{n}": moved(f"/{n - 1}") for n in range(1, 5)} | {"/0": page(PNG)}
    assert fetch(internet, f"https://{HOST}/3") == PNG
    with pytest.raises(FetchFailed, match="redirects more than 3"):
        fetch(internet, f"https://{HOST}/4")
    assert len(site.heads) == 4 + 4


def test_a_redirect_without_a_place_fails(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(b"", "302 Found")
    with pytest.raises(FetchFailed):
        fetch(internet)


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "206 Partial Content", "204 No Content", "304 Same"])
def test_any_status_but_200_fails_and_is_named(site: Site, internet: Internet, status: str) -> None:
    site.pages["*"] = page(b"", status)
    with pytest.raises(FetchFailed, match=status[:3]):
        fetch(internet)


def test_an_unknown_name_fails(internet: Internet) -> None:
    with pytest.raises(FetchFailed, match="unknown"):
        fetch(internet, "https://nowhere.example/")


def test_a_name_without_addresses_fails(internet: Internet) -> None:
    internet.names[HOST] = [[]]
    with pytest.raises(FetchFailed, match="unknown"):
        fetch(internet)


def test_a_dead_address_is_passed_over(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(PNG)
    internet.dead = {PUBLIC}
    assert fetch(internet) == PNG
    assert internet.dialed == [PUBLIC, OTHER_PUBLIC]


def test_at_most_four_addresses_are_tried(internet: Internet) -> None:
    internet.names[HOST] = [[f"93.184.216.{n}" for n in range(1, 50)]]
    internet.dead = set(internet.names[HOST][0])
    with pytest.raises(FetchFailed):
        fetch(internet)
    assert len(internet.dialed) == 4


def test_a_certificate_for_another_name_fails(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(PNG)
    internet.names["impostor.example"] = [[PUBLIC]]
    with pytest.raises(FetchFailed, match="certificate"):
        fetch(internet, "https://impostor.example/")
    assert site.heads == []


def test_a_certificate_of_an_unknown_authority_fails(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(PNG)
    with pytest.raises(FetchFailed, match="certificate"):
        Fetcher(internet.resolve, internet.connect).fetch(URL, 1000, Deadline.after(5))
    assert site.heads == []


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
    import socket

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


def test_what_the_caller_reads_never_tells_inner_errors(internet: Internet) -> None:
    internet.dead = {PUBLIC, OTHER_PUBLIC}
    with pytest.raises(Problem) as caught:
        fetch(internet)
    assert "refused" not in str(caught.value).lower()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
