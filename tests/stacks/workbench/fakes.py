"""Stand-ins for the commands of a machine on AWS: each writes down how it was called; some act."""

import json
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_RECORD = """#!/bin/bash
echo "$(basename "$0") $*" >> "{calls}"
exit {status}
"""


class Commands:
    """A folder to put first in PATH."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._calls = folder / "calls.log"

    def add(self, name: str, *, status: int = 0) -> None:
        """A command that only records its call."""
        self.script(name, _RECORD.format(calls=self._calls, status=status))

    def python(self, name: str, source: str) -> None:
        """A command that records its call and then runs `source`."""
        record = f"import sys\nopen({str(self._calls)!r}, 'a').write({name!r} + ' ' + ' '.join(sys.argv[1:]) + '\\n')\n"
        self.script(name, f"#!{sys.executable} -IS\n{record}{source}")

    def script(self, name: str, text: str) -> None:
        """An executable file."""
        file = self.folder / name
        file.write_text(text)
        file.chmod(file.stat().st_mode | stat.S_IXUSR)

    def calls(self) -> list[str]:
        """Every call so far, as typed."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []

    @property
    def path(self) -> str:
        """PATH with the fakes first and the system's tools behind."""
        return f"{self.folder}:/usr/local/bin:/usr/bin:/bin"


@contextmanager
def http_answers(answers: Mapping[str, str]) -> Iterator[str]:
    """A server on loopback that answers the paths given, and 404 to any other; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write((body or "").encode())

        do_PUT = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def as_json(value: object) -> str:
    """Shorthand for an answer's body."""
    return json.dumps(value)
