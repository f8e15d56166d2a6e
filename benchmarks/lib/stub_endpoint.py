"""Plays SageMaker's runtime on loopback, without a model: `python -m benchmarks.lib.stub_endpoint`.

Prints its port, then answers every signed InvokeEndpoint with the same 133 probabilities until its input ends. GET
/times answers the milliseconds that each call since the last GET took it, from the request's first line to the answer.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_CLASSES = 133  # as many as the reference workload has
_BODY = json.dumps(
    {
        "probabilities": [1 / _CLASSES] * _CLASSES,
        "classes": [f"breed-{number:03}" for number in range(_CLASSES)],
        "threshold": None,
        "model": "arn:aws:sagemaker:us-east-1:111122223333:model-package/kennel-dev/1",
    }
).encode()
_SIGNATURE = ("AWS4-HMAC-SHA256 ", "Credential=", "SignedHeaders=", "Signature=")

times: list[float] = []
writing = threading.Lock()  # so that who has an answer finds its time in the list


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    def parse_request(self) -> bool:
        """Note the moment, as soon as the first line has come."""
        self.begun = time.perf_counter()
        return super().parse_request()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        with writing:
            self._answer(200, json.dumps(times).encode())
            times.clear()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        signature = self.headers.get("Authorization", "")
        if not all(part in signature for part in _SIGNATURE) or not self.headers.get("X-Amz-Date"):
            self._answer(403, b'{"Message":"Missing Authentication Token"}')
        elif not (self.path.startswith("/endpoints/") and self.path.endswith("/invocations")):
            self._answer(404, b'{"Message":"not found"}')
        else:
            with writing:
                self._answer(200, _BODY)
                times.append(1000 * (time.perf_counter() - self.begun))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-Amzn-Invoked-Production-Variant", "AllTraffic")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
