"""Fetches a caller's URL, guarded against server-side request forgery.

The host is resolved once, every address it has must be public, and the connection goes to a checked address itself, so
that a name which changes between check and connection gains nothing. TLS still proves the name. Each redirect is
checked in the same way. Time and bytes are bounded from the first packet to the last.
"""

import socket
import ssl
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse

from classify.deadline import Deadline
from classify.errors import FetchFailed, FetchTimeout, UrlRefused
from classify.image_types import too_large
from classify.sagemaker_runtime import tls_context
from classify.urls import Target, is_public, parse

_REDIRECTS = 3
_ADDRESSES = 4  # tried for one name
_MOVED = (301, 302, 303, 307, 308)
_CONNECT_SECONDS = 3.0  # for one address


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
    except (OSError, HTTPException) as error:
        raise FetchFailed("The URL's server could not be reached, or broke off.") from error


def resolve(host: str) -> list[str]:
    """Return all textual addresses, each once, in the resolver's order."""
    found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def connect(address: str, timeout: float) -> socket.socket:
    """Return a connection to port 443 of a checked address."""
    return socket.create_connection((address, 443), timeout)


def _follow(target: Target, max_bytes: int, deadline: Deadline, sockets: ExitStack) -> bytes:
    for _ in range(1 + _REDIRECTS):
        with _open(target, deadline) as sock:
            sockets.callback(_shut_down, sock)
            deadline.timeout()  # from here on the socket is shut down in time, unless the deadline has passed
            with _get(sock, target) as response:
                if response.status not in _MOVED:
                    return _body(response, max_bytes)
                target = target.redirected(response.headers.get("Location", ""))
    raise FetchFailed(f"The URL redirects more than {_REDIRECTS} times.")


def _open(target: Target, deadline: Deadline) -> ssl.SSLSocket:
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


def _get(sock: ssl.SSLSocket, target: Target) -> HTTPResponse:
    connection = HTTPConnection(target.authority)
    connection.sock = sock
    headers = {"Host": target.authority, "User-Agent": "Kennel", "Accept": "image/*", "Accept-Encoding": "identity"}
    connection.request("GET", target.path, headers=headers | {"Connection": "close"})
    return connection.getresponse()


def _body(response: HTTPResponse, max_bytes: int) -> bytes:
    if response.status != 200:
        raise FetchFailed(f"The URL's server answered with status {response.status}.")
    body = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    if response.length:
        raise FetchFailed("The URL's server broke off in the middle of the image.")
    return body
