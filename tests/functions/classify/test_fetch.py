"""The guarded fetcher against a real TLS server; only name server and network are pretended."""

import ssl

import pytest

from classify.deadline import Deadline
from classify.errors import ClassifyError, FetchFailed, UrlRefused
from classify.fetch import fetch
from tests.functions.fakes import HOST, OTHER_PUBLIC, PNG, PUBLIC, Internet, Site, moved, page

URL = f"https://{HOST}/dog.png"


def get(url: str = URL) -> bytes:
    return fetch(url, 100_000, Deadline.after(60))


def test_a_picture_behind_a_url_is_fetched(site: Site, internet: Internet) -> None:
    site.pages["/dog.png?size=1"] = page(PNG)
    assert get(f"{URL}?size=1") == PNG


def test_the_request_says_no_more_than_needed(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(PNG)
    get()
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
    assert get("https://Hündchen.example/ü") == PNG
    assert internet.asked == ["xn--hndchen-n2a.example"]


def test_the_connection_goes_to_the_address_that_was_checked(site: Site, internet: Internet) -> None:
    """A name that turns inward between check and connection is never asked for again."""
    site.pages["*"] = page(PNG)
    internet.names[HOST] = [[PUBLIC], ["127.0.0.1"]]
    assert get() == PNG
    assert (internet.asked, internet.dialed) == ([HOST], [PUBLIC])


def test_a_name_that_turned_inward_is_refused_on_the_next_redirect(site: Site, internet: Internet) -> None:
    site.pages["/dog.png"] = moved("/other.png")
    internet.names[HOST] = [[PUBLIC], ["169.254.169.254"]]
    with pytest.raises(UrlRefused):
        get()
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
        get()
    assert internet.dialed == []


def test_one_inner_address_among_public_ones_is_enough_to_refuse(internet: Internet) -> None:
    internet.names[HOST] = [[PUBLIC, "10.0.0.1"]]
    with pytest.raises(UrlRefused):
        get()
    assert internet.dialed == []


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest/meta-data/"])
def test_an_inner_address_in_the_url_is_refused_by_the_real_resolver(url: str) -> None:
    with pytest.raises(UrlRefused):
        get(url)


def test_localhost_is_refused_by_the_real_resolver() -> None:
    with pytest.raises(UrlRefused):
        get("https://localhost/")


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
        get()
    assert internet.dialed == [PUBLIC]


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_to_another_public_host_is_followed(site: Site, internet: Internet, status: str) -> None:
    site.pages |= {"/dog.png": moved("https://elsewhere.example/cat.png", status), "/cat.png": page(PNG)}
    assert get() == PNG
    assert internet.asked == [HOST, "elsewhere.example"]
    assert b"Host: elsewhere.example\r\n" in site.heads[1]


def test_three_redirects_are_followed_and_a_fourth_is_not(site: Site, internet: Internet) -> None:
    site.pages |= {f"/{n}": moved(f"/{n - 1}") for n in range(1, 5)} | {"/0": page(PNG)}
    assert get(f"https://{HOST}/3") == PNG
    with pytest.raises(FetchFailed, match="redirects more than 3"):
        get(f"https://{HOST}/4")
    assert len(site.heads) == 4 + 4


def test_a_redirect_without_a_place_fails(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(b"", "302 Found")
    with pytest.raises(FetchFailed):
        get()


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "206 Partial Content", "204 No Content", "304 Same"])
def test_any_status_but_200_fails_and_is_named(site: Site, internet: Internet, status: str) -> None:
    site.pages["*"] = page(b"", status)
    with pytest.raises(FetchFailed, match=status[:3]):
        get()


def test_an_unknown_name_fails(internet: Internet) -> None:
    with pytest.raises(FetchFailed, match="unknown"):
        get("https://nowhere.example/")


def test_a_name_without_addresses_fails(internet: Internet) -> None:
    internet.names[HOST] = [[]]
    with pytest.raises(FetchFailed, match="unknown"):
        get()


def test_a_dead_address_is_passed_over(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(PNG)
    internet.dead = {PUBLIC}
    assert get() == PNG
    assert internet.dialed == [PUBLIC, OTHER_PUBLIC]


def test_at_most_four_addresses_are_tried(internet: Internet) -> None:
    internet.names[HOST] = [[f"93.184.216.{n}" for n in range(1, 50)]]
    internet.dead = set(internet.names[HOST][0])
    with pytest.raises(FetchFailed):
        get()
    assert len(internet.dialed) == 4


def test_a_certificate_for_another_name_fails(site: Site, internet: Internet) -> None:
    site.pages["*"] = page(PNG)
    internet.names["impostor.example"] = [[PUBLIC]]
    with pytest.raises(FetchFailed, match="certificate"):
        get("https://impostor.example/")
    assert site.heads == []


def test_a_certificate_of_an_unknown_authority_fails(
    site: Site, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages["*"] = page(PNG)
    monkeypatch.setattr("classify.fetch.tls_context", ssl.create_default_context)
    with pytest.raises(FetchFailed, match="certificate"):
        get()
    assert site.heads == []


def test_what_the_caller_reads_never_tells_inner_errors(internet: Internet) -> None:
    internet.dead = {PUBLIC, OTHER_PUBLIC}
    with pytest.raises(ClassifyError) as caught:
        get()
    assert "refused" not in str(caught.value).lower()
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
