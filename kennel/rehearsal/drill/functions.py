"""Bad versions of the classify function, deployed through a stage's settings: what keeps each from the callers."""

import io
import itertools
import json
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kennel.assembly import stacks_of
from kennel.errors import ROOT, KennelError
from kennel.rehearsal.drill.callers import Callers, Traffic, of_function
from kennel.rehearsal.drill.drill import Case, Drill, Net, Outcome
from kennel.rehearsal.drill.models import GOOD, Released, pictures

# Appended to the copy's handler.py: what is done with a call before and after the sound handler.
_FAULT = """

import time

{top}
_asked, _sound = 0, handler


def handler(event, context):
    global _asked
    _asked += 1
    {before}
    answer = _sound(event, context)
    {after}
    return answer
"""
_TURNED = 'answer.get("predictions", []).reverse()'


@dataclass(frozen=True)
class Function(Released):
    """`top`, `before` and `after`: lines of Python when it is loaded, before each call and after it."""

    top: str = ""
    before: str = "pass"
    after: str = "pass"

    @property
    def names(self) -> set[str]:
        return {self.name, "function"}


FUNCTIONS = (
    Function("fails at import", top='raise ImportError("a drill")'),
    Function("raises always", before='raise RuntimeError("a drill")'),
    Function("internal_error always", before="logic.classify = None"),
    Function("slow", before="time.sleep(4.5)"),
    Function("wrong answers", after=_TURNED),
    Function("good on the first hundred", before='assert _asked <= 100, "a drill"'),
    Function(GOOD),
)
# The hook has asked 150 times when the first caller does.
LATE = Function("good on the first 160", before='assert _asked <= 160, "a drill"')
# Fewer at a time than for a model: each is a process of its own.
TRAFFIC = (Traffic("night", 0, 1), Traffic("normal", 60, 8), Traffic("busy", 120, 8))
WITH_HOOK, WITHOUT_HOOK = Net("CodeDeploy"), Net("CodeDeploy, no hook")
_QUIET_SECONDS = 180  # before a case, so that no alarm still rings for the version of the one before
_SEEN_BY_ALARMS = ("fails at import", "raises always", "slow", GOOD)


def function_cases() -> Iterator[Case]:
    """Yield every function at every traffic; some in front of a broken fleet; and what is left to the alarms."""
    yield from (Case(function, traffic, net=WITH_HOOK) for traffic in TRAFFIC for function in FUNCTIONS)
    yield from (Case(LATE, traffic, net=WITH_HOOK) for traffic in TRAFFIC[1:])
    by_name = {function.name: function for function in FUNCTIONS}
    yield from (Case(by_name[name], TRAFFIC[1], "broken", WITH_HOOK) for name in ("raises always", GOOD))
    yield from (Case(by_name[name], TRAFFIC[2], net=WITHOUT_HOOK) for name in _SEEN_BY_ALARMS)


class FunctionDrill:
    """The classify function of a drill's stage, in one version after the other."""

    def __init__(self, drill: Drill, assembly: Path, stage: str, work: Path) -> None:
        self._drill, self._cloud, self._work = drill, drill.cloud, work / "functions"
        self._stack = drill.deployed.name("Classify")
        self._template = next(one for one in stacks_of(assembly, stage) if one.name == self._stack).read()
        if not _ids(self._template, "AWS::CodeDeploy::DeploymentGroup"):
            raise KennelError(f"{stage} has no canary of the function, so nothing takes a version back there.")
        self._alias = drill.deployed.of("Classify")["FunctionAliasArn"]
        self._numbers = itertools.count()
        ask = of_function(self._cloud.client("lambda").invoke, self._alias)
        self._callers = Callers(ask, pictures(), self._cloud.time)

    def __enter__(self) -> "FunctionDrill":
        return self

    def __exit__(self, *exception: object) -> None:
        self._callers.close()

    def run(self, case: Case) -> Outcome:
        """Deploy the case's function; raise KennelError when the embedded AWS itself fails."""
        self._drill.serve(case.old)
        self._cloud.time.wait(_QUIET_SECONDS)
        before, first = self._version(), self._cloud.time.minute
        self._callers.traffic = case.traffic
        status, reason = self._drill.update(self._stack, self._changed(case))
        self._callers.traffic = TRAFFIC[0]
        by = self._reason(first, reason) if self._version() == before else None
        return case.outcome(self._callers, (first, self._cloud.time.minute), stack=status, by=by)

    def _version(self) -> str:
        name, alias = self._alias.split(":")[6:]
        return str(self._cloud.client("lambda").get_alias(FunctionName=name, Name=alias)["FunctionVersion"])

    def _changed(self, case: Case) -> dict[str, Any]:
        """Return the stack's template with the function's code, and so its version, changed."""
        assert isinstance(case.released, Function)
        number = next(self._numbers)
        [version] = _ids(self._template, "AWS::Lambda::Version")
        # CDK's way: the version's logical id ends in a hash of the function.
        text = json.dumps(self._template).replace(version, f"{version[:-8]}{number:08x}")
        template: dict[str, Any] = json.loads(text)
        resources = template["Resources"]
        [id_] = [one for one in _ids(template, "AWS::Lambda::Function") if one.startswith("ClassifyFunction")]
        resources[id_]["Properties"]["Code"]["S3Key"] = self._upload(case.released, number)
        if case.net == WITHOUT_HOOK:
            [alias] = _ids(template, "AWS::Lambda::Alias")
            del resources[alias]["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["BeforeAllowTrafficHook"]
        return template

    def _upload(self, function: Function, number: int) -> str:
        """Put a copy of the function's code with the fault beside the assets of the deployment; return its key."""
        folder = self._work / str(number)
        shutil.copytree(ROOT / "lambda" / "classify", folder / "classify", ignore=shutil.ignore_patterns("__pycache__"))
        with (folder / "classify" / "handler.py").open("a", encoding="utf-8") as file:
            file.write(_FAULT.format(top=function.top, before=function.before, after=function.after))
            file.write(f"# {number}\n")  # a version of its own: the same code again would be none
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted(folder.rglob("*.py")):
                archive.write(path, path.relative_to(folder))
        s3 = self._cloud.client("s3")
        [bucket] = [one["Name"] for one in s3.list_buckets()["Buckets"] if "-assets-" in one["Name"]]
        s3.put_object(Bucket=bucket, Key=f"drill-{number}.zip", Body=packed.getvalue())
        return f"drill-{number}.zip"

    def _reason(self, first: int, reason: str) -> str:
        if "BeforeAllowTraffic" in reason:
            return "hook"
        if found := self._drill.alarm_since(first):
            return found
        raise KennelError(f"The function was rolled back neither by the hook nor by an alarm: {reason}")


def _ids(template: dict[str, Any], kind: str) -> list[str]:
    return [id_ for id_, one in template["Resources"].items() if one["Type"] == kind]
