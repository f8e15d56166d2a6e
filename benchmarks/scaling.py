"""How the endpoint's fleet would follow its load: policies simulated on arrival patterns. `--json FILE` writes it.

What one instance holds comes from stacks/capacity.json, so the policies are those that the stages would deploy. The
simulation goes second by second, without chance and without a clock, so it gives the same figures each time.

Its assumptions (Developer Guide and User Guide of Application Auto Scaling, unless it says otherwise):
- a target is lost after three data points above it, and regained after a quarter of an hour a tenth below it;
- then the fleet is to have as many instances as bring the metric to the target, in proportion;
- while the endpoint changes it takes no other change, and the cooldown counts from the change's begin;
- a new instance answers `start` seconds after it was requested (three to five minutes by public accounts);
- a data point is known as soon as its period is over;
- a server that has `backlog` seconds of work waiting refuses what comes beyond it.
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

# As `python -m` has it: so that `benchmarks` and the app are found.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

import stacks  # noqa: E402, F401  # before aws_cdk, which its configuration imports
from benchmarks.lib.report import parser, print_table, write_json  # noqa: E402
from stacks.config import HostingSettings  # noqa: E402
from stacks.hosting.scaling import FILE, Measured, read_capacity, scaling_target  # noqa: E402

_UNKNOWN_TYPE = "no such type"  # of which the file has none: the measurement of another machine
Pattern = Callable[[int], float]  # requests a second, at a second


@dataclass(frozen=True)
class Instance:
    """What one instance holds: `loads` are (requests a second, most in flight), ascending; the last is the most."""

    loads: tuple[tuple[float, float], ...]
    p99: float  # seconds; the target that the last of the loads held
    backlog: float = 2.0  # seconds

    @property
    def rate(self) -> float:
        return self.loads[-1][0]

    def peak(self, rate: float) -> float:
        """Return the requests in flight at that rate, none waiting."""
        low = (0.0, 0.0)
        for high in self.loads:
            if rate <= high[0]:
                return low[1] + (high[1] - low[1]) * (rate - low[0]) / (high[0] - low[0])
            low = high
        return low[1]


@dataclass(frozen=True)
class Policy:
    """`metric` None: a fleet that stays. `step`: at twice the target in one data point, as many instances again."""

    name: str
    metric: str | None
    target: float = 0.0
    step: bool = False
    out_cooldown: int = 300
    in_cooldown: int = 300
    least: int = 2
    most: int = 4

    @property
    def period(self) -> int:
        """Return the seconds of a data point."""
        return 10 if self.metric == "concurrency" else 60


@dataclass
class Fleet:
    """A simulated fleet, and what became of its requests; `over`: refused, or later than the p99 target."""

    instance: Instance
    policy: Policy
    start: int
    serving: int = 0
    waiting: float = 0.0
    ready: list[tuple[int, int]] = field(default_factory=list)  # (second, instances then)
    points: deque[float] = field(default_factory=lambda: deque(maxlen=90))
    changed: float = -math.inf
    requests: float = 0.0
    over: float = 0.0
    instance_seconds: float = 0.0

    def run(self, pattern: Pattern, seconds: int) -> Self:
        self.serving, window = self.policy.least, list[float]()
        for second in range(seconds):
            if self.ready and second >= self.ready[0][0]:
                self.serving = self.ready.pop()[1]
            window.append(self._second(pattern(second)))
            if self.policy.metric and len(window) == self.policy.period:
                self.points.append(max(window) if self.policy.metric == "concurrency" else sum(window))
                window.clear()
                self._decide(second)
        return self

    def _second(self, arriving: float) -> float:
        """Serve one second; return what the metric counts in it for one instance."""
        capacity = self.serving * self.instance.rate
        wait = self.waiting / capacity
        accepted = capacity * (1 + self.instance.backlog) - self.waiting
        refused = max(0.0, arriving - accepted)
        served = min(self.waiting + arriving - refused, capacity)
        self.waiting += arriving - refused - served
        self.requests += arriving
        self.over += arriving if max(wait, self.waiting / capacity) > self.instance.p99 else refused
        self.instance_seconds += self.serving + (self.ready[0][1] - self.serving if self.ready else 0)
        if self.policy.metric == "invocations":
            return arriving / self.serving
        return self.instance.peak(served / self.serving) + self.waiting / self.serving

    def _decide(self, second: int) -> None:
        policy, since, points = self.policy, second - self.changed, [*self.points]
        if self.ready:
            return
        wanted, calm = self.serving, 900 // policy.period
        may_grow, may_shrink = since >= policy.out_cooldown, since >= policy.in_cooldown and len(points) >= calm
        if may_grow and len(points) >= 3 and min(points[-3:]) > policy.target:
            wanted = math.ceil(self.serving * points[-1] / policy.target)
        if may_grow and policy.step and points[-1] >= 2 * policy.target:
            wanted = max(wanted, 2 * self.serving)
        if may_shrink and max(points[-calm:]) < 0.9 * policy.target:
            wanted = math.ceil(self.serving * max(points[-calm:]) / policy.target)
        self._change(min(max(wanted, policy.least), policy.most), second)

    def _change(self, wanted: int, second: int) -> None:
        if wanted == self.serving:
            return
        self.changed = second
        if wanted > self.serving:
            self.ready = [(second + self.start, wanted)]
        else:
            self.serving = wanted
            self.points.clear()


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--start", type=int, default=240, help="seconds until a new instance answers (default 240)")
    arguments = made.parse_args()
    measured = read_capacity(_UNKNOWN_TYPE)
    if measured is None:
        raise SystemExit(f"{FILE.name} has no measurement: `kennel loadtest ARTIFACT --out stacks/{FILE.name}` first.")
    instance = Instance(tuple((load.rate, load.peak) for load in measured.loads), measured.p99_ms / 1000)
    figures = table(instance, policies(measured), arguments.start)
    show(figures, instance, arguments.start)
    write_json(figures, arguments.json)


def policies(measured: Measured) -> list[Policy]:
    """Return the policies compared: both metrics, steps, other cooldowns and safety factors, fleets that stay."""

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


def patterns(rate: float) -> dict[str, tuple[Pattern, int]]:
    """Return the arrivals by name, with their length in seconds; `rate` is what one instance holds."""
    return {
        "day, 0.6 to 3 instances": (lambda t: rate * (1.8 - 1.2 * math.cos(2 * math.pi * t / 86_400)), 86_400),
        "ramp, 1 to 3 in 10 min": (lambda t: rate * (1 + 2 * min(1.0, max(0, t - 900) / 600)), 5_400),
        "ramp, 1 to 3 in 2 min": (lambda t: rate * (1 + 2 * min(1.0, max(0, t - 900) / 120)), 5_400),
        "burst to 3 for 30 min": (lambda t: rate * (3 if 900 <= t < 2_700 else 1), 5_400),
        "spike to 3 for 1 min": (lambda t: rate * (3 if 900 <= t < 960 else 1), 5_400),
        "bursts to 3, 5 of 20 min": (lambda t: rate * (3 if t % 1_200 < 300 else 1), 14_400),
    }


def table(instance: Instance, policies: Sequence[Policy], start: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return by pattern and policy the share of requests over the target, and instance-hours."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name, (pattern, seconds) in patterns(instance.rate).items():
        for policy in policies:
            fleet = Fleet(instance, policy, start).run(pattern, seconds)
            found = {"over": fleet.over / fleet.requests, "instance_hours": fleet.instance_seconds / 3600}
            figures.setdefault(name, {})[policy.name] = found
    return figures


def show(figures: dict[str, dict[str, Any]], instance: Instance, start: int) -> None:
    """Print a table for each pattern."""
    print(f"One instance holds {instance.rate:g} requests a second; a new one answers after {start} s; 2 to 4 of them.")
    for pattern, by_policy in figures.items():
        rows = [(name, f"{one['over']:.2%}", one["instance_hours"]) for name, one in by_policy.items()]
        print_table(pattern, ("policy", "over the target", "instance-hours"), rows)


if __name__ == "__main__":
    main()
