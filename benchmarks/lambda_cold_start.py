"""Process start to first answer of the classify function, under Lambda's own runtime client. `--json FILE` writes it.

Against a handler that does nothing, and one that imports boto3 and makes its client. Kennel's first answer includes a
call of an endpoint; a stub on loopback plays it, in a process of its own. Medians of runs in turns.
"""

import base64
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# As `python -m` has it: so that `benchmarks` and `kennel` are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib import assets, report  # noqa: E402
from benchmarks.lib.lambda_table import (  # noqa: E402
    CALLING,
    COMPILED,
    NOTHING,
    PLAIN,
    SOURCE,
    overhead,
    parts,
    show,
    summary,
)
from benchmarks.lib.photographs import files, photographs  # noqa: E402
from benchmarks.lib.report import Figures  # noqa: E402
from benchmarks.lib.sandboxes import Function, Warm, answered  # noqa: E402

REQUESTS = 300  # warm ones of each function
WARM_UP = 20  # before them


def main() -> None:
    parser = report.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="counted cold starts of each (default 15)")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {arguments.rounds}")
    with tempfile.TemporaryDirectory(prefix="kennel-lambda-") as folder, _stub() as port:
        figures = measure(Path(folder), port, arguments.rounds)
    show(figures)
    report.write_json(figures, arguments.json)


def measure(folder: Path, port: int, rounds: int) -> Figures:
    asset = assets.deployed(folder / "cdk.out")
    source, compiled = assets.source_only(asset, folder / "source"), assets.compiled(asset, folder / "compiled")
    plain, measured = assets.plain(folder / "plain"), assets.measured(compiled, folder / "measured")
    functions = {
        NOTHING: Function("nothing.handler", plain),
        PLAIN: Function("plain.handler", plain),
        CALLING: Function("calling.handler", plain),
        COMPILED: Function("classify.handler.handler", compiled),
        SOURCE: Function("classify.handler.handler", source),
    }
    picture = files(photographs(folder / "photos", None, made=1))[0].read_bytes()
    event = json.dumps({"image": base64.b64encode(picture).decode()}).encode()
    figures: Figures = {"machine": report.describe_machine(), "rounds": rounds, "picture_bytes": len(picture)}
    figures |= _cold(functions, Function("measured.handler", measured), event, port, rounds)
    figures |= _warm({name: functions[name] for name in (NOTHING, CALLING, COMPILED)}, event, picture, port)
    figures["kilobytes"] = {COMPILED: assets.kilobytes(compiled), SOURCE: assets.kilobytes(source)}
    figures["deployed_compiled"] = assets.is_compiled(asset)
    return figures | summary(figures)


def _cold(functions: dict[str, Function], measured: Function, event: bytes, port: int, rounds: int) -> Figures:
    """Return the milliseconds of each round, after one that is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    inside = []
    for turn in range(rounds + 1):
        for name, function in functions.items():
            with answered(function, event, f"http://127.0.0.1:{port}") as warm:
                if turn:
                    taken[name].append(1000 * (warm.answered - warm.started))
        with answered(measured, event, f"http://127.0.0.1:{port}") as warm:
            if turn:
                inside.append(parts(warm.started, warm.first["clock"], warm.answered))
    return {"cold_ms": taken, "parts_ms": inside}


def _warm(functions: dict[str, Function], event: bytes, picture: bytes, port: int) -> Figures:
    direct, endpoint = _direct(picture, port)
    rows: dict[str, dict[str, float | None]] = {}
    for name, function in functions.items():
        with answered(function, event, f"http://127.0.0.1:{port}") as warm:
            times = _times(warm, event, port)
        its = _endpoint_times(port)
        rows[name] = {
            "answer_ms": statistics.median(times),
            "beyond_endpoint_ms": overhead(times, its) if its else None,
            "beyond_direct_ms": statistics.median(times) - direct if its else None,
        }
    found = {"warm": rows, "direct_ms": direct, "endpoint_ms": endpoint}
    return found | {"warm_overhead_ms": rows[COMPILED]["beyond_endpoint_ms"]}


def _times(warm: Warm, event: bytes, port: int) -> list[float]:
    for _ in range(WARM_UP):
        warm.invoke(event)
    _endpoint_times(port)  # drops those of the warm-up
    return [warm.invoke(event) for _ in range(REQUESTS)]


def _direct(picture: bytes, port: int) -> tuple[float, float]:
    """Return the median milliseconds of the same call without a function, and what the endpoint took of it."""
    headers = {"Content-Type": "image/jpeg", "X-Amz-Date": "20261121T000000Z"}
    headers["Authorization"] = "AWS4-HMAC-SHA256 Credential=a, SignedHeaders=b, Signature=c"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    times = []
    for turn in range(WARM_UP + REQUESTS):
        if turn == WARM_UP:
            _endpoint_times(port)
        begun = time.perf_counter()
        connection.request("POST", "/endpoints/kennel-dev/invocations", picture, headers)
        response = connection.getresponse()
        response.read()
        times.append(1000 * (time.perf_counter() - begun))
    connection.close()
    return statistics.median(times[WARM_UP:]), statistics.median(_endpoint_times(port))


def _endpoint_times(port: int) -> list[float]:
    """Return the milliseconds of the calls since the last time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/times")
    found: Any = json.loads(connection.getresponse().read())
    connection.close()
    return [float(milliseconds) for milliseconds in found]


@contextmanager
def _stub() -> Iterator[int]:
    """Yield the port of a stub endpoint, which ends with this process, whose pipe it reads."""
    command = [sys.executable, "-m", "benchmarks.lib.stub_endpoint"]
    with subprocess.Popen(
        command, cwd=assets.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin and process.stdout
        yield int(process.stdout.readline())
        process.stdin.close()


if __name__ == "__main__":
    main()
