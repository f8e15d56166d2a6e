"""Fetches a stranger's URL without becoming his messenger to the inside (server-side request forgery).

The host is resolved once, every address it has must be public, and the connection goes to a checked address itself, so
that a name which changes between check and connection gains nothing. TLS still proves the name. Each redirect is
checked in the same way. Time and bytes are bounded from the first packet to the last.
"""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import cast

from classify.addresses import is_public
from classify.deadline import Deadline
from classify.errors import FetchFailed, FetchTimeout, UrlRefused
from classify.pictures import too_large
from classify.timed_socket import Wire, tls
from classify.urls import Place, parse

_REDIRECTS = 3
_ADDRESSES = 4  # tried for one name
_MOVED = (301, 302, 303, 307, 308)
_CONNECT = 3.0  # seconds for one address


def _resolve(host: str) -> list[str]:
    """All textual addresses, each once, in the resolver's order."""
    found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _connect(address: str, timeout: float) -> socket.socket:
    return socket.create_connection((address, 443), timeout)


@dataclass(frozen=True)
class Fetcher:
    """The fields are a seam for tests, which play the name server and the network; which addresses count as public
    is none of them."""

    resolve: Callable[[str], list[str]] = _resolve
    connect: Callable[[str, float], socket.socket] = _connect
    tls: Callable[[], ssl.SSLContext] = field(default=tls)

    def fetch(self, url: str, max_bytes: int, deadline: Deadline) -> bytes:
        """The body behind `url`; raises UrlRefused, FetchFailed, FetchTimeout or TooLarge."""
        try:
            return self._follow(parse(url), max_bytes, deadline)
        except TimeoutError as error:
            raise FetchTimeout("The URL's server took too long; send the picture itself, or try again.") from error
        except ssl.SSLCertVerificationError as error:
            raise FetchFailed("The URL's server has no valid certificate.") from error
        except (OSError, HTTPException) as error:
            raise FetchFailed("The URL's server could not be reached, or broke off.") from error

    def _follow(self, place: Place, max_bytes: int, deadline: Deadline) -> bytes:
        for _ in range(1 + _REDIRECTS):
            with self._open(place, deadline) as wire:
                response = _get(wire, place)
                if response.status not in _MOVED:
                    return _body(response, max_bytes)
                place = place.moved(response.headers.get("Location", ""))
        raise FetchFailed(f"The URL redirects more than {_REDIRECTS} times.")

    def _open(self, place: Place, deadline: Deadline) -> Wire:
        raw = self._dial(self._checked(place.host, deadline), deadline)
        try:
            # The handshake's timeout covers the whole of it, so an unhurried server gains nothing.
            raw.settimeout(deadline.time_left())
            return Wire(self.tls().wrap_socket(raw, server_hostname=place.host), deadline)
        except BaseException:
            raw.close()
            raise

    def _checked(self, host: str, deadline: Deadline) -> list[str]:
        try:
            addresses = deadline.bound(lambda: self.resolve(host))
        except (socket.gaierror, UnicodeError) as error:
            raise FetchFailed("The URL's host name is unknown.") from error
        if not addresses:
            raise FetchFailed("The URL's host name is unknown.")
        # One inner address among public ones is an attempt, not an accident.
        if not all(is_public(address) for address in addresses):
            raise UrlRefused("The URL's host is not on the public internet.")
        return addresses[:_ADDRESSES]

    def _dial(self, addresses: list[str], deadline: Deadline) -> socket.socket:
        for address in addresses[:-1]:
            try:
                return self.connect(address, min(_CONNECT, deadline.time_left()))
            except OSError:
                deadline.time_left()
        return self.connect(addresses[-1], min(_CONNECT, deadline.time_left()))


def _get(wire: Wire, place: Place) -> HTTPResponse:
    connection = HTTPConnection(place.authority)
    connection.sock = cast(socket.socket, wire)  # it has the methods that http.client calls
    headers = {"Host": place.authority, "User-Agent": "Kennel", "Accept": "image/*", "Accept-Encoding": "identity"}
    connection.request("GET", place.target, headers=headers | {"Connection": "close"})
    return connection.getresponse()


def _body(response: HTTPResponse, max_bytes: int) -> bytes:
    if response.status != 200:
        raise FetchFailed(f"The URL's server answered with status {response.status}.")
    body = response.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise too_large(max_bytes)
    if response.length:
        raise FetchFailed("The URL's server broke off in the middle of the picture.")
    return body
