"""The server of a page on loopback to try the deployed function with; it answers only who was told its address."""

import base64
import hmac
import json
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kennel.errors import KennelError
from kennel.invoke import FILE_LIMIT
from kennel.page.snippets import Target, snippets

_STATIC = Path(__file__).with_name("static")
_FILES = {  # path -> (file, media type)
    "/": (_STATIC / "page.html", "text/html; charset=utf-8"),
    "/page.css": (_STATIC / "page.css", "text/css; charset=utf-8"),
    "/page.js": (_STATIC / "page.js", "text/javascript; charset=utf-8"),
    "/picture.js": (_STATIC / "picture.js", "text/javascript; charset=utf-8"),
    "/show.js": (_STATIC / "show.js", "text/javascript; charset=utf-8"),
    "/icon.svg": (_STATIC / "icon.svg", "image/svg+xml"),
    # The report's own, so that both look alike.
    "/report.css": (_STATIC.parents[1] / "rehearsal/report.css", "text/css; charset=utf-8"),
}
_MAX_PIXELS = 50_000_000  # what the inference server takes
_SOURCES = ("url", "s3_uri", "image")
_HEADERS = {
    "Cache-Control": "no-store",
    # Pictures that the page shows are blobs of its own; it speaks to nobody but this server.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Refusal(Exception):
    """A request that the page itself refuses: an HTTP status and a sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Handler(BaseHTTPRequestHandler):
    server: Any  # a _Server
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds of silence
    server_version, sys_version = "Kennel", ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, action: Callable[[], None]) -> None:
        try:
            self._check_host()
            action()
        except _Refusal as error:
            self._refuse(error.status, error.code, str(error))
        except KennelError as error:
            self._refuse(502, "not_asked", str(error))
        except OSError:
            raise  # the browser has gone, or says nothing more
        except Exception as error:
            self._refuse(500, "page_error", f"The page's server broke: {type(error).__name__}: {error}.")

    def _check_host(self) -> None:
        """Refuse a name that leads here by DNS rebinding; any port is allowed (ssh -L)."""
        if self.headers.get("Host", "").partition(":")[0] not in ("127.0.0.1", "localhost"):
            raise _Refusal(403, "foreign_host", "This page answers as 127.0.0.1 and localhost only.")

    def _place(self) -> str:
        """Return the path below the secret prefix, which other users of the machine do not know."""
        path = urlsplit(self.path).path
        prefix = f"/{self.server.secret}"
        if not hmac.compare_digest(path[: len(prefix)].encode(), prefix.encode()) or path[len(prefix) :][:1] != "/":
            raise _Refusal(404, "not_found", "Here is nothing: open the whole address that was printed.")
        return path[len(prefix) :]

    def _get(self) -> None:
        place = self._place()
        if place == "/about":
            return self._send_json(200, self._about())
        if place == "/snippets":
            query = parse_qs(urlsplit(self.path).query)
            return self._send_json(200, self._snippets({key: one[0] for key, one in query.items()}))
        if place not in _FILES:
            raise _Refusal(404, "not_found", f"There is no {place[:100]} here.")
        file, kind = _FILES[place]
        self._send(200, file.read_bytes(), {"Content-Type": kind})

    def _about(self) -> dict[str, Any]:
        target = self.server.target
        where = "rehearsed on this machine" if target.environment else target.region
        return {"stage": target.stage, "where": where, "max_bytes": FILE_LIMIT, "max_pixels": _MAX_PIXELS}

    def _snippets(self, query: dict[str, str]) -> dict[str, str]:
        source, value = query.get("source", ""), query.get("value", "")
        if source not in _SOURCES or not value:
            raise _Refusal(400, "invalid_request", "Give source (url, s3_uri or image) and value.")
        return snippets(self.server.target, source, value, query.get("type") or "application/octet-stream")

    def _post(self) -> None:
        if self._place() != "/classify":
            raise _Refusal(404, "not_found", "Pictures go to /classify.")
        # A browser names the origin of every POST; without the check any web site could ask on the operator's bill.
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise _Refusal(403, "foreign_origin", "This page takes pictures from itself only; programs ask Lambda.")
        raw, milliseconds = self.server.target.ask(self._event(self._body()))
        self._send(200, raw, {"Content-Type": "application/json", "Server-Timing": f"invoke;dur={milliseconds:.3f}"})

    def _event(self, body: bytes) -> dict[str, str]:
        if self.headers.get_content_type() != "application/json":
            return {"image": base64.b64encode(body).decode("ascii")}
        try:
            event = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Refusal(400, "invalid_request", "The body is not valid JSON.") from error
        if not isinstance(event, dict):
            raise _Refusal(400, "invalid_request", "The body is not a JSON object.")
        return event

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise _Refusal(411, "invalid_request", "The request does not say how long it is.")
        if int(length) > FILE_LIMIT:
            raise _Refusal(413, "too_large", f"A request to Lambda holds {FILE_LIMIT / 1e6:.1f} MB of picture.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _Refusal(400, "invalid_request", "Half of the request is missing.")
        return body

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.close_connection = True  # a body may be on its way that nobody reads
        error = {"code": code, "message": message, "status": status}
        self._send_json(status, {"error": error}, {"Connection": "close"})

    def _send_json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing: the terminal belongs to the rehearsal."""


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
    """Serve the page on 127.0.0.1 and yield its address, which is a secret; port 0 takes a free one.

    Raise KennelError when the port is in use.
    """
    try:
        server = _Server(("127.0.0.1", port), Handler)
    except OSError as error:
        raise KennelError(f"Port {port} cannot be taken ({error.strerror}): choose another, or 0 for any.") from error
    server.target, server.secret = target, secrets.token_urlsafe(16)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/{server.secret}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    target: Target
    secret: str

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Do not report a browser that went away."""
