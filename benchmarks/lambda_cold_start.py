"""Process start to first answer of the classify function, under Lambda's own runtime client. `--json FILE` writes it.

Against a handler that does nothing, and one that imports boto3 and makes its client. Kennel's first answer includes a
call of an endpoint, which a stub on loopback plays. Medians of runs in turns.
"""

import base64
import json
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty

# As `python -m` has it: so that `benchmarks` and `kennel` are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib.photographs import files, photographs  # noqa: E402
from benchmarks.lib.processes import output_of, start  # noqa: E402
from benchmarks.lib.report import Figures, describe_machine, print_table, print_targets, write_json  # noqa: E402
from benchmarks.lib.report import parser as options  # noqa: E402
from kennel.rehearsal.interfaces import FunctionCall  # noqa: E402
from kennel.rehearsal.serving.sandbox import Invocation, RuntimeApi, environment  # noqa: E402

REQUESTS = 300  # warm ones of each function
WARM_UP = 20  # before them
NOTHING, PLAIN, CALLING = "does nothing", "boto3 client", "boto3 client and call"
KENNEL = "Kennel"
TARGETS = {"cold_ratio": "at most 0.75", "warm_overhead_ms": "at most 2", "package_kb": "under 200"}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="counted cold starts of each (default 15)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kennel-lambda-") as folder, StubEndpoint() as stub:
        figures = measure(Path(folder), stub, arguments.rounds)
    show(figures)
    write_json(figures, arguments.json)


def measure(folder: Path, stub: "StubEndpoint", rounds: int) -> Figures:
    asset = _synthesized(folder / "cdk.out")
    plain = _plain(folder / "plain")
    functions = {
        NOTHING: ("nothing.handler", plain),
        PLAIN: ("plain.handler", plain),
        CALLING: ("calling.handler", plain),
        KENNEL: ("classify.handler.handler", asset),
    }
    picture = files(photographs(folder / "photos", None, made=1))[0].read_bytes()
    event = json.dumps({"image": base64.b64encode(picture).decode()}).encode()
    figures: Figures = {"machine": describe_machine(), "rounds": rounds, "picture_bytes": len(picture)}
    figures["cold_ms"] = _cold(functions, event, stub, rounds)
    figures["warm"] = _warm({name: functions[name] for name in (NOTHING, CALLING, KENNEL)}, event, stub)
    return figures | summary(figures) | {"package_kb": _kilobytes(asset)}


def _cold(functions: dict[str, "Function"], event: bytes, stub: "StubEndpoint", rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of each round, after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            with answered(function, event, stub.url) as warm:
                taken[name].append(warm.cold)
    return {name: times[1:] for name, times in taken.items()}


def _warm(functions: dict[str, "Function"], event: bytes, stub: "StubEndpoint") -> Figures:
    """Return the milliseconds of an answer, and those beyond the endpoint's own time where it was called."""
    rows = {}
    for name, function in functions.items():
        with answered(function, event, stub.url) as warm:
            times = _times(warm, event, stub)
        its = stub.take_times()
        rows[name] = {
            "answer_ms": statistics.median(times),
            "beyond_endpoint_ms": overhead(times, its) if its else None,
        }
    return rows


def _times(warm: "Warm", event: bytes, stub: "StubEndpoint") -> list[float]:
    for _ in range(WARM_UP):
        warm.invoke(event)
    stub.take_times()  # drops those of the warm-up
    return [warm.invoke(event) for _ in range(REQUESTS)]


def overhead(function: Sequence[float], endpoint: Sequence[float]) -> float:
    """Return the median of what each answer took beyond the endpoint's time. Raise ValueError unless they pair."""
    return statistics.median(mine - its for mine, its in zip(function, endpoint, strict=True))


def summary(figures: Figures) -> Figures:
    """Return medians and ratios of the package as it is deployed: without compiled files (docs/decisions.md, 21)."""
    medians = {name: statistics.median(times) for name, times in figures["cold_ms"].items()}
    return {
        "cold_median_ms": medians,
        "cold_ratio": medians[KENNEL] / medians[PLAIN],
        "cold_ratio_calling": medians[KENNEL] / medians[CALLING],
        "warm_overhead_ms": figures["warm"][KENNEL]["beyond_endpoint_ms"],
    }


def show(figures: Figures) -> None:
    print(f"{figures['machine']}\n")
    medians = figures["cold_median_ms"]
    print_table(
        "Process start to first answer, ms",
        ("function", "median", "least", "most", "over boto3"),
        [
            (name, medians[name], min(ms), max(ms), medians[name] / medians[PLAIN])
            for name, ms in figures["cold_ms"].items()
        ],
    )
    print_table(
        "Warm, median ms",
        ("function", "answer", "beyond the endpoint"),
        [(name, *warm.values()) for name, warm in figures["warm"].items()],
    )
    print_targets(figures, TARGETS)


_PLAIN = {
    "nothing": "def handler(event, context):\n    return {}\n",
    "plain": """
import boto3

client = boto3.client("sagemaker-runtime")


def handler(event, context):
    return {}
""",
    "calling": """
import base64
import json
import os

import boto3

client = boto3.client("sagemaker-runtime")


def handler(event, context):
    picture = base64.b64decode(event["image"])
    answer = client.invoke_endpoint(EndpointName=os.environ["ENDPOINT_NAME"], Body=picture, ContentType="image/jpeg")
    return json.loads(answer["Body"].read())
""",
}


def _synthesized(folder: Path) -> Path:
    """Return the asset with the package `classify` as `cdk synth` would upload it."""
    output_of(start([sys.executable, "app.py"], CDK_OUTDIR=str(folder), CDK_VALIDATION="false"))
    return next(folder.glob("asset.*/classify/handler.py")).parents[1]


def _plain(folder: Path) -> Path:
    """Return a folder with the functions to compare with: modules `nothing`, `plain` and `calling`."""
    folder.mkdir()
    for name, source in _PLAIN.items():
        (folder / f"{name}.py").write_text(source)
    return folder


def _kilobytes(asset: Path) -> float:
    """Return the thousands of bytes of the archive that would be uploaded."""
    with tempfile.TemporaryDirectory() as folder:
        return Path(shutil.make_archive(f"{folder}/asset", "zip", asset)).stat().st_size / 1000


# As Lambda starts it, with libraries on PYTHONPATH: an environment's own start-up files would cost every function.
_PYTHON = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
_ARN = "arn:aws:lambda:us-east-1:111122223333:function:classify"
_TIMEOUT = 30.0  # seconds for one answer
_SETTINGS = {"ENDPOINT_NAME": "kennel-dev", "ALLOWED_S3_PREFIXES": "bucket/photos/", "TOP_K": "5"}
# Names as long as a role's.
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "A" * 20, "AWS_SECRET_ACCESS_KEY": "s" * 40, "AWS_SESSION_TOKEN": "t" * 700}


Function = tuple[str, Path]  # its handler, as Lambda names it, in the asset folder


@dataclass(frozen=True)
class Warm:
    """A sandbox that has answered once; `cold`: the milliseconds from the start of its process to that answer."""

    api: RuntimeApi
    cold: float

    def invoke(self, payload: bytes) -> float:
        """Return the milliseconds from handing out the event to having the answer."""
        begun = time.monotonic()
        _invoke(self.api, payload)
        return 1000 * (time.monotonic() - begun)


@contextmanager
def answered(function: Function, payload: bytes, endpoint: str) -> Iterator[Warm]:
    """Start a sandbox whose first event waits for it. Raise RuntimeError where the function does not answer well."""
    api, (handler, code) = RuntimeApi(), function
    call = FunctionCall(_ARN, "1", handler, code, "", {}, _TIMEOUT, 1024, payload)
    variables = {**environment(call, api.address), **_CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, **_SETTINGS}
    with tempfile.TemporaryFile() as output:
        started = time.monotonic()
        process = subprocess.Popen(
            # -B: a function's code is read-only.
            [str(_PYTHON), "-B", "-m", "awslambdaric", handler],
            env={**variables, "PYTHONPATH": sysconfig.get_path("purelib")},
            cwd=code,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _invoke(api, payload)
            yield Warm(api, 1000 * (time.monotonic() - started))
        except RuntimeError as error:
            output.seek(0)
            raise RuntimeError(f"{handler}: {error}\n{output.read().decode(errors='replace')}") from error
        finally:
            process.kill()
            process.wait()
            api.close()


def _invoke(api: RuntimeApi, payload: bytes) -> None:
    api.invocations.put(Invocation(str(uuid.uuid4()), payload, time.time() + _TIMEOUT, _ARN))
    try:
        posted = api.posted.get(timeout=_TIMEOUT)
    except Empty as error:
        raise RuntimeError("it did not answer") from error
    if posted.kind != "response" or "error" in json.loads(posted.body):
        raise RuntimeError(f"it answered {posted.body[:500]!r}")


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


class _StubHandler(BaseHTTPRequestHandler):
    server: "StubEndpoint"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet

    def parse_request(self) -> bool:
        """Note the moment, as soon as the first line has come."""
        self.begun = time.perf_counter()
        return super().parse_request()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        signature = self.headers.get("Authorization", "")
        if not all(part in signature for part in _SIGNATURE) or not self.headers.get("X-Amz-Date"):
            return self._answer(403, b'{"Message":"Missing Authentication Token"}')
        with self.server.writing:
            self._answer(200, _BODY)
            self.server.times.append(1000 * (time.perf_counter() - self.begun))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-Amzn-Invoked-Production-Variant", "AllTraffic")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


class StubEndpoint(ThreadingHTTPServer):
    """Answers every signed InvokeEndpoint with the same probabilities while the block runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _StubHandler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.times: list[float] = []
        self.writing = threading.Lock()  # so that who has an answer finds its time in the list
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def take_times(self) -> list[float]:
        """Return the milliseconds that each call since the last time took, from its first line to the answer."""
        with self.writing:
            taken, self.times = self.times, []
        return taken

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


if __name__ == "__main__":
    main()
