"""InvokeEndpoint over one kept connection: botocore's signer and http.client.

boto3's client for it would take as long again as everything else until the first answer (docs/decisions.md).
"""

import os
import socket
import time
from functools import lru_cache
from http.client import HTTPConnection, HTTPException
from ssl import SSLError
from typing import NamedTuple, Self, cast
from urllib.parse import quote, urlsplit

from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]

from classify.deadline import Deadline
from classify.errors import EndpointUnavailable
from classify.service import Service, configured, of_environment
from classify.timed_socket import Wire, tls

_CONNECT = 2.0  # seconds
# Seconds. Balancers drop connections that were silent for minutes, some without a word, and a request over such a one
# would wait until its deadline (botocore#2916).
_IDLE = 30.0


class Credentials(NamedTuple):
    """What the signer reads of botocore's own, whose module would take 7 ms more to import."""

    access_key: str
    secret_key: str
    token: str | None

    @classmethod
    def of_environment(cls) -> Self:
        """The role's, as Lambda gives them for the sandbox's whole life. Raises KeyError."""
        keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        return cls(*keys, os.environ.get("AWS_SESSION_TOKEN"))


class Response(NamedTuple):
    status: int
    error_type: str  # the header x-amzn-ErrorType
    body: bytes


def prepare() -> None:
    """Do ahead what the first call needs and what cannot fail: no connection is opened."""
    if not configured().startswith("http:"):
        tls()


class Runtime:
    """Keeps its connection between calls, which are made one at a time, as Lambda does."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._wire: Wire | None = None
        self._used = 0.0  # in seconds of time.monotonic()

    @classmethod
    @lru_cache(maxsize=1)
    def of_environment(cls) -> Self:
        """The sandbox's. Raises KeyError where there is no region."""
        return cls(of_environment())

    def invoke(self, endpoint: str, body: bytes, kind: str, deadline: Deadline) -> Response:
        """What the service says, be it an error. `kind`: the body's media type. Raises EndpointUnavailable."""
        try:
            return self._ask(self._signed(endpoint, body, kind), deadline)
        except TimeoutError as error:
            raise EndpointUnavailable("The model did not answer in time; try again.", again=True) from error
        except (OSError, HTTPException) as error:
            raise EndpointUnavailable("The model could not be reached; try again.", again=True) from error

    def close(self) -> None:
        if self._wire:
            self._wire.hang_up()
        self._wire = None

    def _signed(self, endpoint: str, body: bytes, kind: str) -> AWSRequest:
        url = f"{self._service.url}/endpoints/{quote(endpoint, safe='')}/invocations"
        headers = {"Host": self._service.parts.netloc, "Content-Type": kind}
        headers |= {"Accept": "application/json", "User-Agent": "Kennel"}
        request = AWSRequest("POST", url, headers, body)
        SigV4Auth(Credentials.of_environment(), "sagemaker", self._service.region).add_auth(request)
        return request

    def _ask(self, request: AWSRequest, deadline: Deadline) -> Response:
        if time.monotonic() - self._used > _IDLE:
            self.close()
        if self._wire:
            try:
                return self._exchange(self._wire, request, deadline)
            except (ConnectionError, SSLError):
                pass  # closed by the other side while it was idle
        return self._exchange(self._dial(deadline), request, deadline)

    def _exchange(self, wire: Wire, request: AWSRequest, deadline: Deadline) -> Response:
        self._wire, wire.deadline = wire, deadline
        try:
            connection = HTTPConnection("")  # the request names its host
            connection.sock = cast(socket.socket, wire)  # it has the methods that http.client calls
            connection.request("POST", urlsplit(request.url).path, request.data, dict(request.headers.items()))
            response = connection.getresponse()
            answer = Response(response.status, response.headers.get("x-amzn-ErrorType", ""), response.read())
        except BaseException:
            self.close()
            raise
        self._used = time.monotonic()
        if response.will_close:
            self.close()
        return answer

    def _dial(self, deadline: Deadline) -> Wire:
        parts = self._service.parts
        port = parts.port or (443 if self._service.is_secure else 80)
        # Looking up a name knows no timeout of its own.
        sock = deadline.bound(lambda: socket.create_connection((parts.hostname or "", port), _CONNECT))
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._service.is_secure:
                sock.settimeout(deadline.time_left())
                sock = tls().wrap_socket(sock, server_hostname=parts.hostname)
        except BaseException:
            sock.close()
            raise
        return Wire(sock, deadline)
