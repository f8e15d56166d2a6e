"""The page's server: on loopback, for as long as somebody wants it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

from kennel.errors import KennelError
from kennel.page.handler import Handler
from kennel.page.target import Target


def serve_until_stopped(target: Target, port: int, tell: Callable[[str], None]) -> None:
    """Serve the page, `tell` its address, and return at Ctrl-C or SIGTERM. In the main thread only."""
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with served(target, port) as address:
        tell(address)
        done.wait()


@contextmanager
def served(target: Target, port: int = 0) -> Iterator[str]:
    """Serve the page on 127.0.0.1 and yield its address; port 0 takes a free one.

    Raises KennelError when the port is in use.
    """
    try:
        server = _Server(("127.0.0.1", port), Handler)
    except OSError as error:
        raise KennelError(f"Port {port} cannot be taken ({error.strerror}): choose another, or 0 for any.") from error
    server.target = target
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    target: Target

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no news."""
