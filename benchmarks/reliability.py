"""Load on the rehearsal's whole chain while it breaks. `--json FILE` writes the figures.

Invoke (half with the HTTP API's event) -> the function under Lambda's own runtime client -> a proxy that throttles,
resets and delays calls -> the embedded InvokeEndpoint -> two real servers, killed every few seconds. Each answer is
held against one that was worked out beforehand. Exit status 1: a request was lost or answered wrong.
"""

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path

# As `python -m` has it: so that `benchmarks` and `kennel` are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.lib.callers import asking, load  # noqa: E402
from benchmarks.lib.fault_proxy import Mix  # noqa: E402
from benchmarks.lib.reliability_table import Figures, figures, show  # noqa: E402
from benchmarks.lib.report import describe_machine  # noqa: E402
from benchmarks.lib.stack_under_load import killing, released  # noqa: E402
from benchmarks.lib.toy_model import pictures  # noqa: E402

CALLERS = 100  # the Prod stage's reserved concurrency
RAMP = 0.25  # seconds for each caller to join: its sandbox must start within Lambda's 10 s


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120, help="of load (default 120)")
    parser.add_argument("--callers", type=int, default=CALLERS, help=f"at a time (default {CALLERS})")
    parser.add_argument("--kill-every", type=float, default=20, metavar="SECONDS", help="(default 20)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    if min(arguments.seconds, arguments.callers, arguments.kill_every) <= 0:
        parser.error("--seconds, --callers and --kill-every must be more than 0")
    # urllib3 would tell of each connection beyond those that it keeps.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="kennel-load-") as folder:
        found = measure(Path(folder), arguments.callers, arguments.seconds, arguments.kill_every, Mix())
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if found["lost"] or found["wrong"] else 0


def measure(work: Path, callers: int, seconds: float, kill_every: float, mix: Mix) -> Figures:
    about, ramp = {"machine": describe_machine(), "callers": callers, "seconds": seconds}, RAMP * callers
    with released(work, mix, callers) as stack, killing(kill_every, ramp + seconds - kill_every / 2) as kills:
        found = load(asking(stack.client, stack.function), pictures(40), callers, seconds, ramp)
        return about | figures(found, kills, stack.proxy.counts)


if __name__ == "__main__":
    sys.exit(main())
