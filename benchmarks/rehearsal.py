"""What a rehearsal costs beside training: every step of `kennel rehearse` but Train. `--json FILE` writes the figures.

The digits, one epoch: how long training takes is left out. Medians of whole runs, after one that nobody counts.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# As `python -m` has it: so that `benchmarks` is found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib.report import parser, print_table, print_targets, write_json  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TARGET = 20.0  # seconds on two cores, at most


def rehearse() -> dict[str, Any]:
    """Return rehearsal.json of one run; raise RuntimeError with its errors if it fails."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", "from kennel.cli import app; app()", "rehearse", "--out", out]
        command += ["--epochs", "1", "--threshold", "0"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the rehearsal failed:\n{done.stderr}")
        found: dict[str, Any] = json.loads(Path(out, "rehearsal.json").read_text())
        return found


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each step in each round, and `all but Train`."""
    taken: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        found = rehearse()
        if not turn:
            continue
        steps = {step["name"]: step["seconds"] for step in found["steps"]}
        steps["all but Train"] = found["seconds"] - steps["Train"]
        for name, seconds in steps.items():
            taken.setdefault(name, []).append(seconds)
    return taken


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=3, help="counted runs (default 3)")
    arguments = made.parse_args()
    if arguments.rounds < 1:
        made.error(f"--rounds must be at least 1, not {arguments.rounds}")
    taken = measure(arguments.rounds)
    rows = [(name, statistics.median(times), min(times), max(times)) for name, times in taken.items()]
    print_table("Rehearsal", ("step", "median s", "min s", "max s"), rows)
    figures = {"seconds": taken, "target": TARGET, "all_but_train": statistics.median(taken["all but Train"])}
    print_targets(figures, {"all_but_train": f"at most {TARGET:.0f}, on two cores"})
    write_json(figures, arguments.json)


if __name__ == "__main__":
    main()
