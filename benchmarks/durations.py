"""What the commands that everybody runs take. `--json FILE` writes the figures; medians, after one uncounted run.

synth: `python app.py` for both stages against an app with one bucket, with the same flags, validation and cdk-nag, in
turns. rehearsal: every step of `kennel rehearse` with the digits and one epoch, whose training is left out of the sum.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

# As `python -m` has it: so that `benchmarks` is found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib.processes import ROOT, output_of, start  # noqa: E402
from benchmarks.lib.report import Figures, parser, print_table, print_targets, write_json  # noqa: E402

SYNTH_TARGET = 2.5  # times the app with one bucket, at most
REHEARSAL_TARGET = 20.0  # seconds beside training on two cores, at most
Taken = dict[str, list[float]]  # seconds of each round, by what took them

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


def main() -> None:
    made = parser(__doc__)
    made.add_argument("command", choices=["synth", "rehearsal"])
    made.add_argument("--rounds", type=int, default=3, help="counted runs (default 3)")
    arguments = made.parse_args()
    round_of = synth if arguments.command == "synth" else rehearsal
    taken: Taken = {}
    for turn in range(arguments.rounds + 1):
        for name, seconds in round_of().items():
            taken.setdefault(name, []).extend([seconds] if turn else [])
    rows = [(name, statistics.median(times), min(times), max(times)) for name, times in taken.items()]
    print_table(arguments.command, ("", "median s", "min s", "max s"), rows)
    figures, targets = summary(arguments.command, taken)
    print_targets(figures, targets)
    write_json(figures, arguments.json)


def synth() -> dict[str, float]:
    """Return the seconds of both apps; raise RuntimeError with the errors of the one that fails."""
    return {
        "one bucket": _synth_seconds("-c", ONE_BUCKET, str(ROOT)),
        "both stages": _synth_seconds("app.py"),
    }


def _synth_seconds(*arguments: str) -> float:
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        output_of(start([sys.executable, *arguments], CDK_OUTDIR=out))
        return time.perf_counter() - begun


def rehearsal() -> dict[str, float]:
    """Return the seconds of each step of one rehearsal and `all but Train`; raise RuntimeError if it fails."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", "from kennel.cli import app; app()", "rehearse"]
        output_of(start([*command, "--out", out, "--epochs", "1", "--threshold", "0"]))
        found = json.loads(Path(out, "rehearsal.json").read_text())
    steps: dict[str, float] = {step["name"]: step["seconds"] for step in found["steps"]}
    return steps | {"all but Train": found["seconds"] - steps["Train"]}


def summary(command: str, taken: Taken) -> tuple[Figures, dict[str, str]]:
    """Return the figures of `--json`, and the targets in words."""
    medians = {name: statistics.median(times) for name, times in taken.items()}
    if command == "synth":
        ratio = medians["both stages"] / medians["one bucket"]
        rounds = len(taken["both stages"])
        figures = {"ratio": ratio, "target": SYNTH_TARGET, "rounds": rounds, "seconds": taken}
        return figures, {"ratio": f"at most {SYNTH_TARGET}"}
    figures = {"seconds": taken, "target": REHEARSAL_TARGET, "all_but_train": medians["all but Train"]}
    return figures, {"all_but_train": f"at most {REHEARSAL_TARGET:.0f}, on two cores"}


if __name__ == "__main__":
    main()
