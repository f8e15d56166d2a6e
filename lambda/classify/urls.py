"""Parses a caller's URL and tells public addresses; what two parsers could read in two ways is refused."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from classify.errors import UrlRefused

_LONGEST = 8192  # characters; signed URLs run to some 2,000
_UNQUOTED = "!#$%&'()*+,/:;=?@[]~"  # kept in path and query; the rest, such as ä, is percent-encoded

# The only block that IANA hands out as global unicast. Outside it lie mapped and compatible IPv4, NAT64 (64:ff9b::/96),
# site-local, unique-local, link-local and whatever comes next: refused without being looked into.
_GLOBAL_V6 = IPv6Network("2000::/3")

# Inside it, and known as global to some of the Python versions that this runs on.
_SPECIAL_V6 = (
    IPv6Network("2001::/23"),  # Teredo (carries IPv4 addresses) and other protocols' own blocks
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4 (carries IPv4 addresses)
    IPv6Network("3fff::/20"),  # documentation
)

# Global, but relays of 6to4 that are gone (RFC 7526).
_RELAYS_V4 = IPv4Address("192.88.99.0").packed[:3]


def is_public(address: str) -> bool:
    """Return whether a textual address is one of the public internet; False for what is no address at all."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    if isinstance(ip, IPv4Address):
        return ip.packed[:3] != _RELAYS_V4
    return ip in _GLOBAL_V6 and not any(ip in network for network in _SPECIAL_V6)


class Target(NamedTuple):
    """What is fetched: `host` is a lower-case ASCII name or a canonical address, `path` includes the query."""

    host: str
    path: str

    @property
    def authority(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def redirected(self, location: str) -> "Target":
        """Return where a redirect leads. Raise UrlRefused as `parse` does."""
        try:
            return parse(urljoin(f"https://{self.authority}{self.path}", location))
        except ValueError as error:
            raise _invalid() from error


def parse(url: str) -> Target:
    """Return the URL's parts. Raise UrlRefused for all but https on port 443 of a plain host."""
    parts = _split(url)
    if parts.scheme != "https":
        raise UrlRefused("Only https URLs are fetched.")
    if "@" in parts.netloc:
        raise UrlRefused("URLs with a user name or a password are not fetched.")
    host = _host(parts)
    path = parts.path or "/"
    return Target(host, quote(f"{path}?{parts.query}" if parts.query else path, safe=_UNQUOTED))


def _split(url: str) -> SplitResult:
    """Browsers, proxies and libraries disagree on backslashes, blanks and control characters."""
    if len(url) > _LONGEST:
        raise UrlRefused(f"The URL is longer than {_LONGEST} characters.")
    if not url.isprintable() or " " in url or "\\" in url:
        raise UrlRefused("The URL has blanks, control characters or backslashes; percent-encode them.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _invalid() from error
    if port not in (None, 443):
        raise UrlRefused("Only port 443 is fetched from.")
    return parts


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if parts.netloc.startswith("["):
        return str(_literal(host, IPv6Address))
    name = _ascii(host)
    last = name.rpartition(".")[2]
    # Old resolvers read 2130706433, 0x7f.1 and 0177.0.0.1 as addresses; here only the usual spelling is one.
    if last.isdigit() or last.startswith("0x"):
        return str(_literal(name, IPv4Address))
    return name


def _literal(text: str, kind: type[IPv4Address | IPv6Address]) -> IPv4Address | IPv6Address:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise UrlRefused("The URL's host is not an address in its usual form.") from error
    if not isinstance(address, kind) or "%" in text:
        raise UrlRefused("The URL's host is not an address in its usual form.")
    return address


def _ascii(host: str) -> str:
    """Return an international name in the form that DNS knows, without one trailing dot, which changes nothing."""
    try:
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError as error:
        raise UrlRefused("The URL's host is not a valid name.") from error
    letters = name.replace(".", "").replace("-", "").replace("_", "")
    if not letters.isalnum() or len(name) > 253:
        raise UrlRefused("The URL's host is not a valid name.")
    return name


def _invalid() -> UrlRefused:
    return UrlRefused("This is not a valid URL; send one like https://example.com/dog.jpg.")
