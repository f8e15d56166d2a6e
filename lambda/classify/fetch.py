"""Fetches a caller's URL, guarded against server-side request forgery.

The host is resolved once, every address it has must be public, and the connection goes to a checked address itself, so
that a name which changes between check and connection gains nothing. TLS still proves the name. Each redirect is
checked in the same way; a URL that two parsers could read in two ways is refused. Time and bytes are bounded from the
first packet to the last: what counts is what was received, not what the answer says of itself, and an answer whose
framing is not RFC 9112's is none.
"""

import io
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from classify.deadline import Deadline
from classify.errors import FetchFailed, FetchTimeout, UrlRefused
from classify.image_types import too_large
from classify.sagemaker_runtime import tls_context

_REDIRECTS = 3
_ADDRESSES = 4  # tried for one name
_MOVED = (301, 302, 303, 307, 308)
_CONNECT_SECONDS = 3.0  # for one address
_FRAMING_BYTES = 2**18  # of heads and chunk sizes, beside the body
_CHUNK_LINE_BYTES = 4096
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")  # RFC 9112, 7.1: the size, and extensions
_LENGTH = re.compile("[0-9]{1,15}")
_NOT_HTTP = "The URL's server does not keep to HTTP, or broke off."


def fetch(url: str, max_bytes: int, deadline: Deadline) -> bytes:
    """Return the body behind the URL. Raise UrlRefused, FetchFailed, FetchTimeout or TooLarge."""
    try:
        # A server may send a byte now and then for ever: at the deadline its socket is shut down under the thread that
        # reads, which ends it.
        with ExitStack() as sockets:
            return deadline.run(lambda: _follow(parse(url), max_bytes, deadline, sockets))
    except TimeoutError as error:
        raise FetchTimeout("The URL's server took too long; send the image itself, or try again.") from error
    except ssl.SSLCertVerificationError as error:
        raise FetchFailed("The URL's server has no valid certificate.") from error
    except OSError as error:
        raise FetchFailed("The URL's server could not be reached, or broke off.") from error


def resolve(host: str) -> list[str]:
    """Return all textual addresses, each once, in the resolver's order."""
    found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def connect(address: str, timeout: float) -> socket.socket:
    """Return a connection to port 443 of a checked address."""
    return socket.create_connection((address, 443), timeout)


def _follow(target: "Target", max_bytes: int, deadline: Deadline, sockets: ExitStack) -> bytes:
    for _ in range(1 + _REDIRECTS):
        with _open(target, deadline) as sock:
            sockets.callback(_shut_down, sock)
            deadline.timeout()  # from here on the socket is shut down in time, unless the deadline has passed
            with _get(sock, target, max_bytes) as response:
                if response.status not in _MOVED:
                    return _body(response, max_bytes)
                target = target.redirected(response.headers.get("Location", ""))
    raise FetchFailed(f"The URL redirects more than {_REDIRECTS} times.")


def _open(target: "Target", deadline: Deadline) -> ssl.SSLSocket:
    raw = _dial(_checked_addresses(target.host), deadline)
    try:
        # The handshake's timeout covers the whole of it, so a slow server gains nothing.
        raw.settimeout(deadline.timeout())
        return tls_context().wrap_socket(raw, server_hostname=target.host)
    except BaseException:
        raw.close()
        raise


def _shut_down(sock: ssl.SSLSocket) -> None:
    with suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RDWR)


def _checked_addresses(host: str) -> list[str]:
    try:
        addresses = resolve(host)
    except (socket.gaierror, UnicodeError) as error:
        raise FetchFailed("The URL's host name is unknown.") from error
    if not addresses:
        raise FetchFailed("The URL's host name is unknown.")
    # One inner address among public ones is an attempt, not an accident.
    if not all(is_public(address) for address in addresses):
        raise UrlRefused("The URL's host is not on the public internet.")
    return addresses[:_ADDRESSES]


def _dial(addresses: list[str], deadline: Deadline) -> socket.socket:
    for address in addresses[:-1]:
        with suppress(OSError):
            return connect(address, min(_CONNECT_SECONDS, deadline.timeout()))
    return connect(addresses[-1], min(_CONNECT_SECONDS, deadline.timeout()))


def _get(sock: ssl.SSLSocket, target: "Target", max_bytes: int) -> HTTPResponse:
    connection = HTTPConnection(target.authority)
    connection.sock = sock
    headers = {"Host": target.authority, "User-Agent": "Kennel", "Accept": "image/*", "Accept-Encoding": "identity"}
    connection.request("GET", target.path, headers=headers | {"Connection": "close"})
    response = HTTPResponse(_Received(sock, max_bytes + _FRAMING_BYTES), method="GET")  # type: ignore[arg-type]
    try:
        response.begin()
    except (OSError, FetchFailed):
        raise
    except Exception as error:  # a hostile head may make its reader raise anything
        raise FetchFailed(_NOT_HTTP) from error
    return response


class _Received(io.RawIOBase):
    """The bytes that a socket receives; more than `limit` are an error, whatever the answer says of its length."""

    def __init__(self, sock: ssl.SSLSocket, limit: int) -> None:
        self._sock, self._left = sock, limit

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a buffered reader, which is all that HTTPResponse wants of its socket."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._sock.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise FetchFailed("The URL's server sends more around the image than HTTP needs.")
        return count


def _body(response: HTTPResponse, max_bytes: int) -> bytes:
    """Return the body, framed as RFC 9112 says: http.client takes a chunk of -1 bytes for all that may come."""
    if response.status != 200:
        raise FetchFailed(f"The URL's server answered with status {response.status}.")
    stream, headers = response.fp, response.headers
    codings = [one.strip().lower() for one in headers.get_all("Transfer-Encoding", [])]
    lengths = {one.strip() for one in headers.get_all("Content-Length", [])}
    if codings == ["chunked"]:
        return b"".join(_chunks(stream, max_bytes))
    if codings or len(lengths) > 1 or not all(_LENGTH.fullmatch(one) for one in lengths):
        raise FetchFailed(_NOT_HTTP)
    if lengths:
        return _exactly(stream, int(lengths.pop()), max_bytes)
    body = stream.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    return body


def _chunks(stream: io.BufferedReader, max_bytes: int) -> Iterator[bytes]:
    """Yield the chunks up to the last, which is empty; the trailers after it are left unread."""
    received = 0
    while line := _CHUNK.fullmatch(stream.readline(_CHUNK_LINE_BYTES)):
        size = int(line[1], 16)
        received += size
        if received > max_bytes:
            raise too_large(max_bytes)
        if not size:
            return
        yield _exactly(stream, size, max_bytes)
        if _exactly(stream, 2, max_bytes) != b"\r\n":
            break
    raise FetchFailed(_NOT_HTTP)


def _exactly(stream: io.BufferedReader, size: int, max_bytes: int) -> bytes:
    if size > max_bytes:
        raise too_large(max_bytes)
    data = stream.read(size)
    if len(data) < size:
        raise FetchFailed("The URL's server broke off in the middle of the image.")
    return data


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
