"""A peer that is told byte by byte what to say, where a whole server would be too well-behaved."""

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest


def read_request(sock: socket.socket) -> bytes:
    """The body."""
    whole = b""
    while b"\r\n\r\n" not in whole:
        whole += sock.recv(65536)
    head, _, body = whole.partition(b"\r\n\r\n")
    length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
    while len(body) < length:
        body += sock.recv(65536)
    return body


@contextmanager
def peer(
    environment: pytest.MonkeyPatch, *answers: list[bytes], pause: float = 0.0, tls: ssl.SSLContext | None = None
) -> Iterator[list[int]]:
    """A server that gives each connection its list of answers, then hangs up. Yields the requests of each."""
    counts: list[int] = []
    over = threading.Event()

    def accepted(server: socket.socket) -> socket.socket:
        raw = server.accept()[0]
        return tls.wrap_socket(raw, server_side=True) if tls else raw

    def serve(server: socket.socket) -> None:
        for replies in answers:
            with suppress(OSError), accepted(server) as sock:
                counts.append(0)
                for reply in replies:
                    read_request(sock)
                    counts[-1] += 1
                    for piece in (reply[n : n + 1] for n in range(len(reply))) if pause else (reply,):
                        sock.sendall(piece)
                        if over.wait(pause):
                            return

    with socket.create_server(("127.0.0.1", 0)) as server:
        environment.delenv("AWS_ENDPOINT_URL", raising=False)
        environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{server.getsockname()[1]}")
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield counts
        over.set()
