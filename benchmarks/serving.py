"""Servers side by side on this machine: Kennel's, TorchServe's and a FastAPI one. `--json FILE` writes the figures.

ResNet-50 at 224 with random weights; load from a process of its own, over kept connections, with whole photographs.
Every answer is looked at. The bound is what the cores could do if nothing but decoding, resizing and the model cost.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# As `python -m` has it: so that `benchmarks` and the server's own modules are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib import process_tree, servers_compared  # noqa: E402
from benchmarks.lib.photographs import bodies, files  # noqa: E402
from benchmarks.lib.report import describe_machine  # noqa: E402
from benchmarks.lib.servers import NotServed, Running, Server, running  # noqa: E402
from benchmarks.lib.servers_compared import Contender  # noqa: E402
from benchmarks.lib.serving_table import CONNECTIONS, Figures, show, summary  # noqa: E402

STARTS = 3  # of each server; the last one gets the load
WARM = 2.0  # seconds of load before the counted ones


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers and files go, as after Ctrl-C
    with tempfile.TemporaryDirectory(prefix="kennel-serving-") as folder:
        figures = measure(arguments.photos, arguments.seconds, Path(folder))
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of pictures to send (default: made ones)")
    parser.add_argument("--seconds", type=float, default=10.0, help="counted load of each kind (default 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    if not 0 < arguments.seconds <= 600:
        parser.error(f"--seconds must be above 0 and at most 600, not {arguments.seconds:g}")
    return arguments


def measure(photos: Path | None, seconds: float, folder: Path) -> Figures:
    """Run everything, one after the other, and return all figures."""
    sent = bodies(folder / "photos", photos)
    models = folder / "models"
    models.mkdir()
    _say("making the model")
    _program("benchmarks.lib.serving_model", str(sent), str(models))
    classes = json.loads((models / "f32" / "model" / "model.json").read_text())["classes"]
    expected = json.loads((models / "expected.json").read_text())
    servers = {}
    for contender in servers_compared.contenders(models, classes, folder):
        _say(contender.name)
        found = _measured(contender, sent, len(classes), seconds, folder / "run")
        if "why" not in found and contender.precision:
            found["bound"] = _bound(models, contender.precision, sent, seconds)
        for load in found.get("loads", {}).values():
            best = load.pop("best")
            load["agreement"] = statistics.fmean(expected[name] == best[name] for name in best) if best else None
        servers[contender.name] = found
    sizes = sorted(file.stat().st_size for file in files(sent))
    pictures = {"count": len(sizes), "median_bytes": sizes[len(sizes) // 2], "made": photos is None}
    figures = {"machine": describe_machine(), "seconds": seconds, "pictures": pictures, "servers": servers}
    return figures | summary(figures)


def _measured(contender: Contender, sent: Path, classes: int, seconds: float, folder: Path) -> Figures:
    """Of one server; `why` alone where it is not to be had here."""
    picture = files(sent)[0].read_bytes()
    try:
        server, firsts = contender.make(), []
        for start in range(STARTS):
            with running(server, folder / contender.name / str(start), picture, classes) as here:
                told = here.said("precision")
                if contender.precision and told != servers_compared.PRECISIONS[contender.precision]:
                    raise NotServed(f"not offered: the server chose {told}")
                firsts.append(here.first_answer)
                loads = _loads(server, here, sent, classes, seconds) if start == STARTS - 1 else {}
    except NotServed as error:
        return {"why": str(error)}
    return {
        "first_answer_seconds": statistics.median(firsts),
        "first_answers": firsts,
        "installed_mb": contender.megabytes(),
        "loads": loads,
    }


def _loads(server: Server, here: Running, sent: Path, classes: int, seconds: float) -> dict[str, Any]:
    loads = {}
    for connections in CONNECTIONS:
        plan = {"port": here.port, "path": server.path, "photos": str(sent), "connections": connections}
        plan |= {"warm": WARM, "seconds": seconds, "outputs": server.outputs, "classes": classes}
        before = process_tree.cpu_seconds(here.pid)
        with process_tree.peak_memory(here.pid) as peak:
            found = _program("benchmarks.lib.load", json.dumps(plan))
        spent = process_tree.cpu_seconds(here.pid) - before
        cores = len(os.sched_getaffinity(0))
        found["server_cpu"] = spent / found["took"] / cores
        loads[str(connections)] = found | {"memory_mib": peak[0]}
    return loads


def _bound(models: Path, precision: str, sent: Path, seconds: float) -> Figures:
    """Answers a second that all cores could give, and the milliseconds of one on one core, alone and with all busy."""
    cores = sorted(os.sched_getaffinity(0))
    alone = _single(models, precision, sent, seconds, cores[:1])[0]
    together = statistics.fmean(one["total"] for one in _single(models, precision, sent, seconds, cores))
    rates = {"rate": 1000 * len(cores) / alone["total"], "busy_rate": 1000 * len(cores) / together}
    return {"milliseconds": alone, "busy_milliseconds": together, **rates}


def _single(models: Path, precision: str, sent: Path, seconds: float, cores: Sequence[int]) -> list[dict[str, float]]:
    module = "benchmarks.lib.single_thread"
    variables = servers_compared.variables(models, precision)
    children = [_start(module, str(sent), str(core), str(seconds), **variables) for core in cores]
    return [_result(module, child) for child in children]


def _program(module: str, *arguments: str) -> Any:
    """Run one of the recipes in an interpreter of its own; return what its last line says, if that is JSON."""
    return _result(module, _start(module, *arguments))


def _start(module: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", module, *arguments],
        cwd=servers_compared.ROOT,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _result(module: str, child: subprocess.Popen[str]) -> Any:
    out, err = child.communicate()
    if child.returncode:
        raise RuntimeError(f"{module} failed:\n{err}")
    lines = out.strip().splitlines()
    return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else None


def _say(what: str) -> None:
    """On stderr: all of it takes some minutes."""
    print(f"{what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
