"""What `python app.py` costs for both stages, against an app with one bucket. `--json FILE` writes the figures.

Both run with cdk.json's feature flags, CloudFormation's built-in validation and cdk-nag, each in an interpreter of its
own, in turns, so that a busy machine slows both. The ratio is that of the medians.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# As `python -m` has it: so that `benchmarks` is found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib.report import parser, print_table, print_targets, write_json  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
TARGET = 2.5  # times the app with one bucket, at most

ONE_BUCKET = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
import stacks
import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from cdk_nag import AwsSolutionsChecks
settings = json.loads(pathlib.Path(sys.argv[1], "cdk.json").read_text())
app = cdk.App(context=settings["context"], analytics_reporting=False, tree_metadata=False)
stack = cdk.Stack(app, "One")
bucket = s3.Bucket(stack, "Bucket", enforce_ssl=True)
cdk.Validations.of(bucket).acknowledge(cdk.Acknowledgment(id="AwsSolutions-S1", reason="Nobody reads it."))
cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
app.synth()
"""


def seconds(command: list[str]) -> float:
    """Return the wall time of one run; raise RuntimeError with its errors if it fails."""
    with tempfile.TemporaryDirectory() as outdir:
        start = time.perf_counter()
        run = subprocess.run(
            command, cwd=ROOT, env=os.environ | {"CDK_OUTDIR": outdir}, capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise RuntimeError(f"{' '.join(command)[:80]} failed:\n{run.stderr}")
        return time.perf_counter() - start


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round for both apps, after one round that nobody counts."""
    commands = {
        "one bucket": [sys.executable, "-c", ONE_BUCKET, str(ROOT)],
        "both stages": [sys.executable, "app.py"],
    }
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, command in commands.items():
            duration = seconds(command)
            if turn:
                taken[name].append(duration)
    return taken


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=5, help="counted runs of each (default 5)")
    arguments = made.parse_args()
    if arguments.rounds < 1:
        made.error(f"--rounds must be at least 1, not {arguments.rounds}")
    taken = measure(arguments.rounds)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    ratio = medians["both stages"] / medians["one bucket"]
    rows = [(name, medians[name], min(times), max(times)) for name, times in taken.items()]
    print_table("Synthesis", ("app", "median s", "min s", "max s"), rows)
    figures = {"ratio": ratio, "target": TARGET, "rounds": arguments.rounds, "seconds": taken}
    print_targets(figures, {"ratio": f"at most {TARGET}"})
    write_json(figures, arguments.json)


if __name__ == "__main__":
    main()
