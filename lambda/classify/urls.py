"""Takes a caller's URL apart, with one reading only: what two parsers could read in two ways is refused."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from classify.errors import UrlRefused

_LONGEST = 8192  # characters; signed URLs run to some 2,000
_AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"  # what stays in path and query; the rest, such as ä, is percent-encoded


class Place(NamedTuple):
    """`host`: a lower-case ASCII name or a canonical address; `target`: path and query as they go on the wire."""

    host: str
    target: str

    @property
    def authority(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def moved(self, location: str) -> "Place":
        """Where a redirect points to; raises UrlRefused as `parse` does."""
        try:
            return parse(urljoin(f"https://{self.authority}{self.target}", location))
        except ValueError as error:
            raise _invalid() from error


def parse(url: str) -> Place:
    """Raises UrlRefused for all but https on port 443 of a plain host."""
    parts = _split(url)
    if parts.scheme != "https":
        raise UrlRefused("Only https URLs are fetched.")
    if "@" in parts.netloc:
        raise UrlRefused("URLs with a user name or a password are not fetched.")
    host = _host(parts)
    path = parts.path or "/"
    return Place(host, quote(f"{path}?{parts.query}" if parts.query else path, safe=_AS_IT_IS))


def _split(url: str) -> SplitResult:
    _check_text(url)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _invalid() from error
    if port not in (None, 443):
        raise UrlRefused("Only port 443 is fetched from.")
    return parts


def _check_text(url: str) -> None:
    """Browsers, proxies and libraries disagree on backslashes, blanks and control characters."""
    if len(url) > _LONGEST:
        raise UrlRefused(f"The URL is longer than {_LONGEST} characters.")
    if not url.isprintable() or " " in url or "\\" in url:
        raise UrlRefused("The URL has blanks, control characters or backslashes; percent-encode them.")


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
    """International names in the form that DNS knows; one trailing dot, which changes nothing, is dropped."""
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
