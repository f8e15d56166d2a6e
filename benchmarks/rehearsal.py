"""What a rehearsal costs beside training: every step of `kennel rehearse` but Train. `--json FILE` writes the figures.

The digits, one epoch: how long training takes is not asked here. Medians of whole runs, after one that nobody counts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = 20.0  # seconds on two cores, at most


def rehearse() -> dict[str, Any]:
    """Return rehearsal.json of one run; raises RuntimeError with the command's words if it fails."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", "from kennel.cli import app; app()", "rehearse", "--out", out]
        command += ["--epochs", "1", "--threshold", "0"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the rehearsal failed:\n{done.stderr}")
        found: dict[str, Any] = json.loads(Path(out, "rehearsal.json").read_text())
        return found


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each step in each round, and `all but Train`."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="counted runs (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {arguments.rounds}")
    taken = measure(arguments.rounds)
    print(f"{'step':<24} {'median s':>9} {'min s':>7} {'max s':>7}")
    for name, times in taken.items():
        print(f"{name:<24} {statistics.median(times):>9.2f} {min(times):>7.2f} {max(times):>7.2f}")
    print(f"at most {TARGET:.0f} s are wanted for all but Train, on two cores")
    if arguments.json:
        figures = {"seconds": taken, "target": TARGET, "all_but_train": statistics.median(taken["all but Train"])}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
