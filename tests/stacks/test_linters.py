"""cfn-lint, checkov and parliament on both stages: each finding is mended, or has its reason in docs/linters.md."""

import fnmatch
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kennel.rehearsal.cloud.deployment import deploy
from tests.rehearsal.cloud.world import World
from tests.stacks.synthesized import Synthesized

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),  # the linters' own
]
BIN = Path(sys.executable).parent
LINTERS = Path(os.environ.get("LINTERS", BIN.parent / "linters" / "bin"))  # `make .venv/.linters` makes it
PAGE = Path(__file__).parents[2] / "docs" / "linters.md"


class Finding(NamedTuple):
    """`where` is `<stack>/<logical id without CDK's hash>`, or for a policy `<stack>/<role>`."""

    tool: str
    rule: str
    where: str


class Reason(NamedTuple):
    """A row of the page; `where` is a pattern."""

    tool: str
    rule: str
    where: str
    why: str


def reasons(tool: str) -> list[Reason]:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith(f"| {tool} ")]
    return [Reason(row[0], row[1].strip("`"), row[2].strip("`"), row[3]) for row in rows]


def judged(tool: str, findings: set[Finding]) -> tuple[list[Finding], list[Reason]]:
    """The findings without a reason, and the reasons without a finding."""
    rows = reasons(tool)

    def fits(row: Reason, finding: Finding) -> bool:
        return row.rule == finding.rule and fnmatch.fnmatchcase(finding.where, row.where)

    without = [finding for finding in sorted(findings) if not any(fits(row, finding) for row in rows)]
    return without, [row for row in rows if not any(fits(row, finding) for finding in findings)]


def plain(logical_id: str) -> str:
    return re.sub(r"[0-9A-F]{8}$", "", logical_id)


def templates(synth: Synthesized) -> dict[str, str]:
    """Path of each template -> its stack without the stage."""
    found = {}
    for stage in ("Dev", "Prod"):
        for about in synth.artifacts(stage):
            file = synth.folder / f"assembly-{stage}" / about["properties"]["templateFile"]
            found[str(file)] = about["displayName"].split("/")[1]
    return found


def _said(*command: str, ok: tuple[int, ...]) -> str:
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode in ok and "Traceback" not in done.stderr, done.stderr[-3000:]
    return done.stdout


def test_of_cfn_lint(synth: Synthesized) -> None:
    stacks = templates(synth)
    command = (str(BIN / "cfn-lint"), "--regions", "eu-west-1", "us-east-1", "--format", "json", "--", *stacks)
    found = set()
    for one in json.loads(_said(*command, ok=(0, 2, 4, 6, 8, 10, 12, 14)) or "[]"):
        path = one["Location"]["Path"] or []
        where = plain(str(path[1])) if path[:1] == ["Resources"] else "/".join(map(str, path[:2]))
        found.add(Finding("cfn-lint", one["Rule"]["Id"], f"{stacks[one['Filename']]}/{where}"))
    assert judged("cfn-lint", found) == ([], [])


def _linter(name: str) -> str:
    program = LINTERS / name
    if not program.exists():
        pytest.skip(f"{program} is not there: `make .venv/.linters` installs it")
    return str(program)


def test_of_checkov(synth: Synthesized) -> None:
    stacks = {Path(file).name: stack for file, stack in templates(synth).items()}
    command = (_linter("checkov"), "--framework", "cloudformation", "--output", "json", "--quiet", "--compact")
    files = [argument for file in templates(synth) for argument in ("--file", file)]
    answer = json.loads(_said(*command, "--skip-download", *files, ok=(0, 1)))
    found = {
        Finding(
            "checkov",
            one["check_id"],
            f"{stacks[Path(one['file_path']).name]}/{plain(one['resource'].rpartition('.')[2])}",
        )
        for one in answer["results"]["failed_checks"]
    }
    assert answer["summary"]["parsing_errors"] == 0
    assert answer["summary"]["passed"] > 100
    assert judged("checkov", found) == ([], [])


def policies(synth: Synthesized, stage: str, work: Path) -> Iterator[tuple[str, Any]]:
    """(`<stack>/<role>`, inline policy) of each deployed role: with real ARNs, which a template does not have."""
    world = World(work)
    with world.cloud:
        deploy(world.cloud, synth.folder, stage)
        iam, cloudformation = world.cloud.client("iam"), world.cloud.client("cloudformation")
        for stack in cloudformation.describe_stacks()["Stacks"]:
            listed = cloudformation.list_stack_resources(StackName=stack["StackName"])["StackResourceSummaries"]
            for one in listed:
                if one["ResourceType"] != "AWS::IAM::Role":
                    continue
                role = one["PhysicalResourceId"]
                for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
                    document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
                    yield f"{stack['StackName'].rpartition('-')[2]}/{plain(one['LogicalResourceId'])}", document


def test_of_parliament(synth: Synthesized, tmp_path: Path) -> None:
    where, folder = {}, tmp_path / "policies"
    folder.mkdir()
    for stage in ("Dev", "Prod"):
        for number, (role, document) in enumerate(policies(synth, stage, tmp_path / stage)):
            file = folder / f"{stage}-{number}.json"
            # parliament fails on a bare number in a condition, which IAM takes.
            file.write_text(json.dumps(json.loads(json.dumps(document), parse_int=str)))
            where[file.name] = role
    assert len(where) > 20
    careless = {"Effect": "Allow", "Action": "s3:GetObjet", "Resource": "arn:aws:s3:::data/*"}
    (folder / "careless.json").write_text(json.dumps({"Version": "2012-10-17", "Statement": careless}))
    where["careless.json"] = "careless"
    said = _said(_linter("parliament"), "--directory", str(folder), "--json", ok=(1,))
    findings = [json.loads(line) for line in said.splitlines()]
    found = {Finding("parliament", one["issue"], where[Path(one["location"]["filepath"]).name]) for one in findings}
    assert Finding("parliament", "UNKNOWN_ACTION", "careless") in found  # it is really asked
    assert judged("parliament", {one for one in found if one.where != "careless"}) == ([], [])
