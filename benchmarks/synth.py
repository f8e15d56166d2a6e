"""What synthesis takes: `python app.py` for both stages against an app with one bucket. `--json FILE` writes it.

Both with the same flags, validation and cdk-nag, in turns; medians, after one round that is not counted.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

# As `python -m` has it: so that `benchmarks` is found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib.processes import ROOT, output_of, start  # noqa: E402
from benchmarks.lib.report import parser, print_table, print_targets, write_json  # noqa: E402

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
APPS = {"one bucket": ("-c", ONE_BUCKET, str(ROOT)), "both stages": ("app.py",)}  # arguments of the interpreter


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=3, help="counted runs (default 3)")
    arguments = made.parse_args()
    rounds = [{name: seconds(*app) for name, app in APPS.items()} for _ in range(arguments.rounds + 1)]
    taken = {name: [one[name] for one in rounds[1:]] for name in APPS}
    medians = {name: statistics.median(times) for name, times in taken.items()}
    figures = {"seconds": taken, "ratio": medians["both stages"] / medians["one bucket"]}
    rows = [(name, medians[name], min(times), max(times)) for name, times in taken.items()]
    print_table("Synthesis", ("app", "median s", "min s", "max s"), rows)
    print_targets(figures, {"ratio": "at most 2.5"})
    write_json(figures, arguments.json)


def seconds(*arguments: str) -> float:
    """Return the seconds of one synthesis; raise RuntimeError with its output where it fails."""
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        output_of(start([sys.executable, *arguments], CDK_OUTDIR=out))
        return time.perf_counter() - begun


if __name__ == "__main__":
    main()
