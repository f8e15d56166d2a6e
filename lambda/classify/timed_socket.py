"""A connection on which every single read and write ends at a deadline, however slowly the peer drips."""

import io
import socket
import ssl
from functools import lru_cache
from typing import Any, Self

from classify.deadline import Deadline


@lru_cache(maxsize=1)
def tls() -> ssl.SSLContext:
    """For every host that is asked; reading the certificate authorities takes some 20 ms, so once a sandbox."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


class _Timed(io.RawIOBase):
    """Reads; closing it leaves the socket alone."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self._sock, self._deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.time_left())
        return self._sock.recv_into(buffer)


class Wire:
    """As much of a socket as http.client uses. Raises TimeoutError when `deadline`, which may be moved, passes."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock, self.deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self.deadline.time_left())
        self._sock.sendall(data)

    def makefile(self, _mode: str = "rb") -> io.BufferedReader:
        return io.BufferedReader(_Timed(self._sock, self.deadline))

    def close(self) -> None:
        """Nothing: http.client closes as soon as it has a last response, before its body is read."""

    def hang_up(self) -> None:
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
