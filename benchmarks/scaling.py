"""How the endpoint's fleet would follow its load: policies simulated on arrival patterns. `--json FILE` writes it.

What one instance holds comes from stacks/capacity.json, so the policies are those that the stages would deploy.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# As `python -m` has it: so that `benchmarks` and the app are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import stacks  # noqa: E402, F401  # before aws_cdk, which its configuration imports
from benchmarks.lib.autoscaling import Instance, Policy, table  # noqa: E402
from stacks.config import HostingSettings  # noqa: E402
from stacks.hosting.scaling import FILE, Measured, read_capacity, scaling_target  # noqa: E402

_ANOTHER = "no such type"  # of which the file has none: the measurement of another machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", type=int, default=240, help="seconds until a new instance answers (default 240)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    arguments = parser.parse_args()
    measured = read_capacity(_ANOTHER)
    if measured is None:
        raise SystemExit(f"{FILE.name} has no measurement: `kennel loadtest ARTIFACT --out stacks/{FILE.name}` first.")
    instance = Instance(tuple((load.rate, load.peak) for load in measured.loads), measured.p99_ms / 1000)
    figures = table(instance, policies(measured), arguments.start)
    show(figures, instance, arguments.start)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


def policies(measured: Measured) -> list[Policy]:
    """Those that are compared: both metrics, steps, other cooldowns and safety factors, and fleets that stay."""

    def target(metric: str, safety: float) -> float:
        return scaling_target(HostingSettings(scaling_metric=metric, safety_factor=safety), measured)

    usual = HostingSettings().safety_factor
    by_metric = [
        each
        for metric in ("concurrency", "invocations")
        for each in (
            Policy(metric, metric, target(metric, usual)),
            Policy(f"{metric} and step", metric, target(metric, usual), step=True),
            Policy(f"{metric}, cooldown 60", metric, target(metric, usual), out_cooldown=60),
            Policy(f"{metric}, safety 0.5", metric, target(metric, 0.5)),
            Policy(f"{metric}, safety 0.9", metric, target(metric, 0.9)),
        )
    ]
    return [*by_metric, Policy("always 2", None), Policy("always 4", None, least=4)]


def show(figures: dict[str, dict[str, Any]], instance: Instance, start: int) -> None:
    print(
        f"One instance holds {instance.rate:g} requests a second; a new one answers after {start} s; 2 to 4 of them.\n"
    )
    print(f"{'':<26} {'over the target':>16} {'instance-hours':>15}")
    for pattern, by_policy in figures.items():
        print(pattern)
        for name, one in by_policy.items():
            print(f"  {name:<26} {one['over']:>13.2%} {one['instance_hours']:>15.2f}")


if __name__ == "__main__":
    main()
