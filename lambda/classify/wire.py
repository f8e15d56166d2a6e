"""A TLS connection on which every single read and write ends at one deadline, however slowly the peer drips."""

import io
from ssl import SSLSocket
from typing import Any, Self

from classify.deadline import Deadline


class _Timed(io.RawIOBase):
    """Reads; closing it leaves the socket alone."""

    def __init__(self, sock: SSLSocket, deadline: Deadline) -> None:
        super().__init__()
        self._sock, self._deadline = sock, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.time_left())
        return self._sock.recv_into(buffer)


class Wire:
    """As much of a socket as http.client uses. Raises TimeoutError when the deadline passes."""

    def __init__(self, sock: SSLSocket, deadline: Deadline) -> None:
        self._sock, self._deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.time_left())
        self._sock.sendall(data)

    def makefile(self, _mode: str = "rb") -> io.BufferedReader:
        return io.BufferedReader(_Timed(self._sock, self._deadline))

    def close(self) -> None:
        """Nothing: http.client closes as soon as it has a last response, before its body is read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
