"""Servers on loopback that stand for what the functions call: web sites, the endpoint, a peer that sends any bytes."""

import base64
import io
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from classify.handler import handler

PUBLIC, OTHER_PUBLIC = "93.184.216.34", "2606:2800:220:1::1"
HOST = "pictures.example"

Page = Callable[[ssl.SSLSocket, threading.Event], None]

# For tests with drawn examples: a busy machine is slow to draw them, and fixtures may serve all of them.
unhurried = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=50)


def picture(kind: str = "PNG", size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), "teal").save(buffer, kind)
    return buffer.getvalue()


PNG = picture()


def page(body: bytes, status: str = "200 OK", *headers: str, length: int | None = None) -> Page:
    """Answers once; `length` is what the head claims, the truth unless given."""

    def serve(sock: ssl.SSLSocket, _: threading.Event) -> None:
        claimed = len(body) if length is None else length
        head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {claimed}", *headers, "", ""))
        sock.sendall(head.encode() + body)

    return serve


def moved(location: str, status: str = "302 Found") -> Page:
    return page(b"", status, f"Location: {location}")


@dataclass
class Site:
    """A TLS server; a request's head is read, then the page of its path (or the one for every path) answers."""

    tls: ssl.SSLContext
    pages: dict[str, Page] = field(default_factory=dict)
    heads: list[bytes] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def _serve(self, raw: socket.socket) -> None:
        with suppress(OSError), raw, self.tls.wrap_socket(raw, server_side=True) as sock:
            head = b""
            while b"\r\n\r\n" not in head:
                got = sock.recv(4096)
                if not got:
                    return
                head += got
            self.heads.append(head)
            self.pages.get(head.split()[1].decode(), self.pages.get("*", page(b"", "404 Not Found")))(sock, self.over)

    @contextmanager
    def up(self) -> Iterator[int]:
        """The port, while it serves."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            threads = [threading.Thread(target=self._accept, args=(server,))]
            threads[0].start()
            try:
                yield server.getsockname()[1]
            finally:
                self.over.set()
                server.shutdown(socket.SHUT_RDWR)
                threads[0].join()

    def _accept(self, server: socket.socket) -> None:
        threads: list[threading.Thread] = []
        with suppress(OSError):
            while True:
                threads.append(threading.Thread(target=self._serve, args=(server.accept()[0],)))
                threads[-1].start()
        for thread in threads:
            thread.join()


@dataclass
class Internet:
    """A name server, and a network in which every address leads to one port of this machine."""

    port: int
    names: dict[str, list[list[str]]] = field(default_factory=dict)  # answers in turn, the last for ever
    asked: list[str] = field(default_factory=list)
    dialed: list[str] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)

    def resolve(self, host: str) -> list[str]:
        self.asked.append(host)
        answers = self.names.get(host)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def connect(self, address: str, timeout: float) -> socket.socket:
        self.dialed.append(address)
        if address in self.dead:
            raise ConnectionRefusedError(111, "Connection refused")
        return socket.create_connection(("127.0.0.1", self.port), timeout)


@dataclass
class Reply:
    """What the endpoint says. None as status: it hangs up; `hangs`: it says nothing before the test is over."""

    status: int | None = 200
    body: Any = None
    error: str = ""
    hangs: bool = False
    headers: dict[str, str] = field(default_factory=dict)


def probabilities(*values: float, **more: Any) -> Reply:
    names = ["cat", "dog", "owl", "yak"][: len(values)]
    return Reply(body={"probabilities": list(values), "classes": names, "model": "arn:kennel/7"} | more)


@dataclass
class Endpoint:
    """Speaks as SageMaker's runtime does: replies in turn, the last one for ever."""

    replies: list[Reply] = field(default_factory=lambda: [probabilities(0.1, 0.7, 0.2)])
    calls: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    peers: list[tuple[str, int]] = field(default_factory=list)  # of each call; the same for one connection
    over: threading.Event = field(default_factory=threading.Event)

    def reply(self) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    @contextmanager
    def up(self) -> Iterator[str]:
        """The URL, while it serves."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1  # head and body in one packet

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.peers.append(self.client_address)
                endpoint.calls.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                reply = endpoint.reply()
                if reply.hangs:
                    endpoint.over.wait()
                if reply.status is None:
                    self.close_connection = True
                else:
                    self._answer(reply)

            def _answer(self, reply: Reply) -> None:
                text = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                self.send_response(reply.status or 0)
                error = {"x-amzn-ErrorType": reply.error} if reply.error else {}
                for name, value in (reply.headers | error).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            server.handle_error = lambda *_: None  # type: ignore[method-assign]
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}"
            finally:
                self.over.set()
                server.shutdown()
                thread.join()


class Context:
    """Lambda's, as much as is used."""

    def __init__(self, seconds: float = 60.0) -> None:
        self.aws_request_id, self._seconds = "11111111-2222-3333-4444-555555555555", seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(1000 * self._seconds)


def base64_of(body: bytes) -> str:
    return base64.b64encode(body).decode()


IMAGE = {"image": base64_of(PNG)}


def ask(event: Any = IMAGE, seconds: float = 60.0) -> dict[str, Any]:
    """The function's answer to a direct call."""
    value: dict[str, Any] = handler(event, Context(seconds))
    return value


def code_of(event: Any = IMAGE, seconds: float = 60.0) -> str:
    return str(ask(event, seconds).get("error", {"code": "ok"})["code"])


def http(body: bytes | str | None, content_type: str | None, **more: Any) -> dict[str, Any]:
    """An event of the HTTP API, payload format 2.0; bytes travel as base64, as there."""
    text = base64_of(body) if isinstance(body, bytes) else body
    return {
        "version": "2.0",
        "routeKey": "POST /classify",
        "headers": {"host": "x"} | ({"content-type": content_type} if content_type else {}),
        "requestContext": {"http": {"method": "POST", "path": "/classify"}, "requestId": "gateway's own"},
        "isBase64Encoded": isinstance(body, bytes),
        **({} if text is None else {"body": text}),
        **more,
    }


def read_request(sock: socket.socket) -> bytes:
    """The body."""

    def more() -> bytes:
        if got := sock.recv(65536):
            return got
        raise ConnectionResetError("the client has closed the connection")

    whole = b""
    while b"\r\n\r\n" not in whole:
        whole += more()
    head, _, body = whole.partition(b"\r\n\r\n")
    length = int(re.findall(rb"(?i)content-length: (\d+)", head)[0])
    while len(body) < length:
        body += more()
    return body


class Requests(list[int]):
    """The number of requests over each connection of a peer, and its port."""

    port: int


@contextmanager
def peer(
    environment: pytest.MonkeyPatch, *answers: list[bytes], pause: float = 0.0, tls: ssl.SSLContext | None = None
) -> Iterator["Requests"]:
    """Serve as the endpoint: each connection gets its list of answers, then it is closed.

    Yield the number of requests of each connection. `pause`: seconds after each byte.
    """
    counts = Requests()
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
        counts.port = server.getsockname()[1]
        environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{counts.port}")
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield counts
        over.set()
