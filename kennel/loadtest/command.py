"""`kennel loadtest`: finds the highest rate that an endpoint or a server holds, and writes it to the capacity file.

The file: docs/contracts/capacity.md.
"""

import dataclasses
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from kennel.aws import client
from kennel.console import AsJson, Display, print_json, say
from kennel.errors import ROOT, KennelError
from kennel.files import replace_text
from kennel.invoke import FILE_LIMIT
from kennel.loadtest.load import Load, Plan
from kennel.loadtest.subject import Subject, deployed, local

_WARM = 2.0  # seconds at the same rate before those that count
_PROBE = (2.0, 3.0)  # requests a second, and for how many seconds, to see how long one takes
_MADE = 8  # pictures, where none are given
_SIZE = (500, 375)  # their pixels, as in the pet and dog data sets
_GRAIN = (50, 38)  # pixels of noise, scaled up: shapes, and a JPEG of about 40 kB with the finer noise on top
_LONGER = 2  # a rate is confirmed for so many times as long as it was tried
PRECISE = 1.05  # the rate that broke over the one that held, at the end
_DOUBLINGS = 12
_HALVINGS = 5
_CONFIRMATIONS = 4
_BACK = 0.92  # of the rate, when a confirmation breaks
_OF_THE_RUN = ("url", "endpoint", "captured_percent")  # what the capacity file does not say of the subject


@dataclass(frozen=True)
class Request:
    """The operator's options; exactly one of `artifact` and `stage` is given."""

    artifact: Path | None
    stage: str
    p99: float
    seconds: float
    photos: tuple[Path, ...]
    out: Path | None

    def __post_init__(self) -> None:
        if (self.artifact is None) == (not self.stage):
            raise KennelError("Name what to measure: a model.tar.gz (or its folder), or a deployed stage with --stage.")
        if self.out:
            check_writable(self.out)


def measure(request: Request, display: Display) -> dict[str, Any]:
    """Find the highest rate that holds, write it to `out`, and return what was written."""
    with tempfile.TemporaryDirectory(prefix="kennel-loadtest-") as name, _subject(request, Path(name)) as subject:
        photos = photographs(request.photos, Path(name))
        if subject.captured_percent:
            kept = f"{subject.captured_percent} % of this load's photos are kept in the data bucket, in base64"
            display.log(f"{kept}, on the disk of the instance first (capture_percent).")
        loads = _search(request, subject, photos, display)
    measured = capacity_entry(subject, loads, request.p99, len(photos))
    if request.out:
        write_capacity(request.out, measured)
    return measured


def photographs(given: Sequence[Path], folder: Path) -> Sequence[Path]:
    """Return `given` as checked, or made pictures in `folder`; raise KennelError for what cannot be sent."""
    for path in given:
        if not path.is_file() or not 0 < path.stat().st_size <= FILE_LIMIT:
            raise KennelError(f"--photo {path} must be a picture file of at most {FILE_LIMIT / 1e6:.1f} MB.")
    return given or [_made(number, folder) for number in range(_MADE)]


def _made(seed: int, folder: Path) -> Path:
    from PIL import Image

    chance = random.Random(seed)
    coarse = Image.frombytes("RGB", _GRAIN, chance.randbytes(3 * _GRAIN[0] * _GRAIN[1]))
    fine = Image.frombytes("RGB", _SIZE, chance.randbytes(3 * _SIZE[0] * _SIZE[1]))
    file = folder / f"{seed}.jpg"
    Image.blend(coarse.resize(_SIZE, Image.Resampling.BICUBIC), fine, 0.05).save(file, quality=90)
    return file


@contextmanager
def _subject(request: Request, folder: Path) -> Iterator[Subject]:
    if request.artifact is None:
        yield deployed(request.stage, client)
    else:
        with local(request.artifact, folder) as subject:
            yield subject


def _search(request: Request, subject: Subject, photos: Sequence[Path], display: Display) -> list[Load]:
    plan = Plan(
        url=subject.url,
        endpoint=subject.endpoint,
        photos=tuple(str(photo.resolve()) for photo in photos),
        rate=_PROBE[0],
        warm=_WARM,
        seconds=_PROBE[1],
        p99_ms=1e6,
    )
    probe = _load(plan)
    if not probe.held:
        raise KennelError(f"The requests of the warm-up were not answered: {probe.error or 'no answer came'}")
    plan = dataclasses.replace(plan, p99_ms=request.p99, seconds=request.seconds)
    longer = dataclasses.replace(plan, seconds=request.seconds * _LONGER)
    return search(
        lambda rate: _shown(dataclasses.replace(plan, rate=rate), "Try", display),
        lambda rate: _shown(dataclasses.replace(longer, rate=rate), "Confirm", display),
        first=500 / (probe.p50_ms or 500),  # half of what one request at a time would come to
    )


def search(run: Callable[[float], Load], confirm: Callable[[float], Load], first: float) -> list[Load]:
    """Return the loads that held, ascending in rate; the last one held twice, in `run` and in the longer `confirm`.

    Doubles from `first` until a rate breaks, halves the gap (as ratios) until it is 5 %, then confirms, going down
    where chance had helped. Raise KennelError where nothing holds.
    """
    held: dict[float, Load] = {}

    def holds(rate: float) -> bool:
        load = run(rate)
        if load.held:
            held[rate] = load
        return load.held

    low, high = _bracket(holds, first)
    while high / low > PRECISE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    best = _confirmed(confirm, low)
    return [*(load for rate, load in sorted(held.items()) if rate < best.rate), best]


def _bracket(holds: Callable[[float], bool], first: float) -> tuple[float, float]:
    """Return a rate that held and a higher one that broke."""
    if holds(first):
        for rate in (first * 2**power for power in range(1, _DOUBLINGS + 1)):
            if not holds(rate):
                return rate / 2, rate
        raise KennelError(f"Even {rate:.0f} requests a second hold: this load cannot find the limit.")
    for rate in (first / 2**power for power in range(1, _HALVINGS + 1)):
        if holds(rate):
            return rate, rate * 2
    raise KennelError(
        f"Not even {rate:.2g} requests a second hold the target: give a higher --p99, or look at the server's log."
    )


def _confirmed(confirm: Callable[[float], Load], rate: float) -> Load:
    for attempt in range(_CONFIRMATIONS):
        load = confirm(rate * _BACK**attempt)
        if load.held:
            return load
    raise KennelError(
        f"No rate held twice (the last tried: {load.rate:.3g} requests a second): is something else running there?"
    )


def _shown(plan: Plan, verb: str, display: Display) -> Load:
    with display.step(f"{verb} {plan.rate:.1f} requests a second") as step:
        load = _load(plan)
        verdict = "held" if load.held else f"broke: {load.error}" if load.error else "too slow"
        step.detail = f"p99 {load.p99_ms or 0:.0f} ms, {load.concurrency:.1f} in flight: {verdict}"
    return load


def _load(plan: Plan) -> Load:
    """Run the load in a process of its own, which shares nothing with this one but the machine."""
    done = subprocess.run(
        [sys.executable, "-m", "kennel.loadtest.load"],
        input=json.dumps(dataclasses.asdict(plan)),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise KennelError(
            f"The load could not be made: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
        )
    return Load(**json.loads(done.stdout))


def capacity_entry(subject: Subject, loads: Sequence[Load], p99_ms: float, photos: int) -> dict[str, Any]:
    """Return one measurement as the file has it, rates and concurrency of one instance; `loads` are those that held."""
    each = [_per_instance(load, subject.instances) for load in loads]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        **{name: value for name, value in vars(subject).items() if name not in _OF_THE_RUN},
        "target_p99_ms": p99_ms,
        "photos": photos,
        **{name: each[-1][name] for name in ("requests_per_second", "concurrency", "concurrency_peak")},
        "loads": each,
    }


def check_writable(file: Path) -> None:
    """Raise KennelError now for a file that could not be written after minutes of measuring."""
    _read_capacity(file)
    if not file.parent.is_dir():
        raise KennelError(f"--out {file}: the folder {file.parent} does not exist.")


def write_capacity(file: Path, measured: dict[str, Any]) -> None:
    """Write the measurement in place of the one of the same instance type; the others stay."""
    measurements = _read_capacity(file)
    measurements[measured["instance_type"]] = measured
    text = json.dumps({"format": 1, "measured": dict(sorted(measurements.items()))}, indent=2)
    try:
        replace_text(file, text + "\n")
    except OSError as error:
        raise KennelError(f"--out {file} cannot be written ({error.strerror}).") from error


def _read_capacity(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))["measured"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KennelError(
            f"--out {file} exists and is no file of `kennel loadtest` ({error}); name another."
        ) from error


def _per_instance(load: Load, instances: int) -> dict[str, Any]:
    rates = {
        "requests_per_second": load.rate,
        "concurrency": load.concurrency,
        "concurrency_peak": load.concurrency_peak,
    }
    figures = ("requests", "p50_ms", "p95_ms", "p99_ms", "late_ms")
    return {name: round(value / instances, 2) for name, value in rates.items()} | {
        name: round(getattr(load, name), 1) for name in figures
    }


def show(measured: dict[str, Any], out: Path | None) -> None:
    """Print the conclusion; the runs were printed as they went."""
    console = Console(highlight=False)
    best, model = measured["loads"][-1], measured["model"]
    lines = [
        f"{measured['requests_per_second']:g} requests a second on {measured['machine']}",
        f"  {model['architecture']} with {measured['runtime']} in {measured['precision']}, "
        f"p50 {best['p50_ms']:g} ms, p99 {best['p99_ms']:g} ms (target {measured['target_p99_ms']:g} ms)",
        f"  in flight {measured['concurrency']:g} on average, {measured['concurrency_peak']:g} at most in ten seconds",
    ]
    if best["late_ms"] > measured["target_p99_ms"] / 10:
        lines.append(f"  Doubtful: requests left up to {best['late_ms']:g} ms late. Measure from a faster machine.")
    lines.append(f"Written to {out}." if out else "Written nowhere: --out stacks/capacity.json makes it the scaling's.")
    say(console, *lines)


def loadtest(
    artifact: Annotated[
        Path | None, typer.Argument(metavar="ARTIFACT", help="model.tar.gz or its folder: a server is started here.")
    ] = None,
    stage: Annotated[str, typer.Option(help="Measure the endpoint of this deployed (or rehearsed) stage.")] = "",
    p99: Annotated[
        float, typer.Option(min=1, max=60_000, help="Milliseconds that 99 of 100 requests must keep.")
    ] = 500,
    seconds: Annotated[
        float, typer.Option(min=1, max=600, help="Length of each try; the last one is twice as long.")
    ] = 20,
    photo: Annotated[
        list[Path] | None, typer.Option(help="Picture to send; repeat it.", show_default="made ones")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File for the result; stacks/capacity.json decides how the endpoint scales.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the requests per second that one instance holds at a p99 target.

    Requests leave when they are due, whether or not earlier ones were answered; one that fails breaks the target. A
    deployed endpoint must not scale meanwhile: its instances are counted at the start.

    [bold]Examples[/]

      kennel loadtest runs/20261121-120000/output/model.tar.gz

      kennel loadtest --stage Dev --p99 300 --out stacks/capacity.json

      kennel loadtest --stage Prod --photo rex.jpg --photo bella.jpg --seconds 60
    """

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a stop by SIGTERM ends the server too
    request = Request(artifact, stage, p99, seconds, tuple(photo or ()), out)
    with Display(Console(stderr=as_json)) as display:  # stdout is for the JSON alone
        measured = measure(request, display)
    if as_json:
        print_json(measured)
    else:
        show(measured, out)
