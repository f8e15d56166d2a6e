"""Which addresses and which URLs are refused before a packet leaves."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.errors import UrlRefused
from classify.fetch import Target, is_public, parse
from tests.functions.fakes import unhurried


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "2a00:1450::1"])
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "100.64.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
    ],
)
def test_inner_and_special_ipv4_addresses_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "::",
        "::1",
        "::7f00:1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "ff0e::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
    ],
)
def test_inner_and_special_ipv6_addresses_are_not(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "93.184.216.34"])
@pytest.mark.parametrize("prefix", ["::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "::"])
def test_an_ipv4_address_in_the_last_bits_of_an_ipv6_one_is_not(prefix: str, inner: str) -> None:
    assert not is_public(
        str(ipaddress.IPv6Address(int(ipaddress.ip_address(prefix)) | int(ipaddress.ip_address(inner))))
    )


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.0.0.1", "169.254.169.254"])
def test_tunnels_that_carry_ipv4_are_not(inner: str) -> None:
    number = int(ipaddress.IPv4Address(inner))
    six_to_four = ipaddress.IPv6Address((0x2002 << 112) | (number << 80))
    teredo = ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF))
    assert not is_public(str(six_to_four))
    assert not is_public(str(teredo))


@unhurried
@given(st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fd00::/8") | st.ip_addresses(network="::/8"))
def test_no_private_address_slips_through(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert not is_public(str(address))


def test_what_is_no_address_is_not_public() -> None:
    assert not is_public("example.com")
    assert not is_public("")


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://example.com/a.jpg", "example.com", "/a.jpg"),
        ("HTTPS://EXAMPLE.com:443/A.jpg?x=1&y=%20#part", "example.com", "/A.jpg?x=1&y=%20"),
        ("https://example.com", "example.com", "/"),
        ("https://example.com.", "example.com", "/"),
        ("https://example.com?x", "example.com", "/?x"),
        ("https://hündchen.example/süß.jpg", "xn--hndchen-n2a.example", "/s%C3%BC%C3%9F.jpg"),
        ("https://93.184.216.34/a", "93.184.216.34", "/a"),
        ("https://[2606:4700:4700:0::1111]/a", "2606:4700:4700::1111", "/a"),
    ],
)
def test_a_url_is_read_as_host_and_path(url: str, host: str, path: str) -> None:
    assert parse(url) == Target(host, path)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.jpg",
        "ftp://example.com/a.jpg",
        "file:///etc/passwd",
        "gopher://example.com/",
        "//example.com/a.jpg",
        "example.com/a.jpg",
        "https:/example.com",
        "https://",
        "https:///a.jpg",
        "https://:443/",
        "https://example.com:80/",
        "https://example.com:8443/",
        "https://example.com:0443x/",
        "https://example.com:99999/",
        "https://user@example.com/",
        "https://user:word@example.com/",
        "https://example.com@127.0.0.1/",
        "https://@example.com/",
        "https://127.0.0.1\\@example.com/",
        "https://example.com\\.evil.example/",
        "https://example.com /a",
        "https://example.com/a\\b",
        "https://exam\tple.com/a",
        "https://example.com/a\r\nHost: inside",
        " https://example.com/",
        "https://example.com/\ud800",
        "https://ex%61mple.com/",
        "https://a..example.com/",
        "https://example.com../",
        "https://.example.com/",
        "https://exa<mple.com/",
        f"https://{'a' * 64}.example/",
        f"https://example.com/{'a' * 9000}",
        "https://[::1",
        "https://[fe80::1%25eth0]/",
        "https://[127.0.0.1]/",
    ],
)
def test_what_is_not_plainly_https_of_a_plain_host_is_refused(url: str) -> None:
    with pytest.raises(UrlRefused):
        parse(url)


@pytest.mark.parametrize(
    "host",
    [
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.0x1",
        "127.0.0.01",
        "127.0.0.1.1",
        "2130706433.",
        "１２７.1",  # noqa: RUF001 full-width digits, which IDN maps to ASCII
        "①②⑦。1",
    ],
)
def test_hosts_in_decimal_octal_or_hex_are_refused(host: str) -> None:
    with pytest.raises(UrlRefused, match=r"usual form|not a valid"):
        parse(f"https://{host}/")


@unhurried
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, f"https://{text}", f"https://example.com/{text}"):
        try:
            target = parse(url)
        except UrlRefused:
            continue
        assert target.host == target.host.lower()
        assert target.host.isascii()
        assert target.path.startswith("/")
        assert target.path.isascii()
        assert " " not in target.path


@unhurried
@given(st.text())
def test_any_redirect_is_read_or_refused(location: str) -> None:
    for url in (location, f"https://{location}", f"//[{location}"):
        try:
            assert Target("example.com", "/a/b").redirected(url).host
        except UrlRefused:
            continue


def test_a_relative_redirect_stays_on_its_host() -> None:
    assert Target("example.com", "/a/b?c").redirected("../d") == Target("example.com", "/d")
    assert Target("2606:4700::1", "/a").redirected("/d") == Target("2606:4700::1", "/d")
