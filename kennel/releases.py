"""The releases of a stage: what is served, what waits, what became of the other versions; and what acts on them.

The registry says what is wanted; what happened is in the records that the observe function writes to the data bucket
(docs/contracts/releases.md). Nothing here touches the endpoint: an approval is an event, and the stage acts on it.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Self

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kennel.aws import Client, aws_errors, client, output, stack_name
from kennel.compare.records import interval
from kennel.console import AsJson, Stage, one_line, print_json, say
from kennel.errors import KennelError

PREFIX = "releases/"
_KEY = re.compile(rf"{PREFIX}(\d{{6,}})/(\d{{8}}T\d{{6}}\.\d{{3}}Z)-([a-z_]+)\.json", re.ASCII)
_SHOWN = 20  # versions
_LONGEST_WHY = 1024  # characters that the registry keeps
FAILED = ("rolled_back", "failed", "diverged")
# States that follow each other within a second, in the order in which they do.
_ORDER = ("approved", "releasing", "baking", "live", *FAILED, "rejected")
_STYLES = {"live": "green", "releasing": "cyan", "baking": "cyan", "waiting": "yellow", "approved": "yellow"}

Version = Annotated[int, typer.Argument(min=1, help="Version of the model, as `kennel releases` shows it.")]


def _reason(text: str) -> str:
    text = one_line(text)
    if not 0 < len(text) <= _LONGEST_WHY:
        raise typer.BadParameter(f"Give a reason of 1 to {_LONGEST_WHY} characters, not {len(text)}.")
    return text


Why = Annotated[str, typer.Option(callback=_reason, metavar="TEXT", help="Kept with the approval or rejection.")]


@dataclass(frozen=True)
class Entry:
    """What a record's key says."""

    version: int
    at: str  # 20261130T163005.000Z
    state: str
    key: str

    @classmethod
    def of(cls, key: str) -> Self | None:
        """Return what `key` says, or None for the key of something else."""
        found = _KEY.fullmatch(key)
        return cls(int(found[1]), found[2], found[3], key) if found and found[3] in _ORDER else None

    @property
    def time(self) -> tuple[str, int]:
        """Return what entries are sorted by."""
        return self.at, _ORDER.index(self.state)


@dataclass(frozen=True, kw_only=True)
class Release:
    """One version, as --json prints it. `state`, which began at `since`:

    waiting (for an approval), approved (waits for its release), releasing, baking, live, superseded, rolled_back (by
    `alarm`), failed, diverged (the endpoint serves something else than the stack says), rejected.
    """

    version: int
    arn: str
    approval: str  # in the registry
    registered: datetime | None
    accuracy: Mapping[str, float]  # value, low, high, each from 0 to 1; empty where the registry does not say
    state: str
    since: str = ""
    approved_at: str = ""
    approved_by: str = ""
    why: str = ""
    alarm: str = ""

    @property
    def sentence(self) -> str:
        """Return the state in words."""
        return {
            "waiting": "waits for approval",
            "approved": "approved, waits for its release",
            "rolled_back": f"rolled back by {self.alarm}",
            "diverged": "diverged: the endpoint serves something else",
        }.get(self.state, self.state)


def gather(client: Client, group: str, bucket: str) -> list[Release]:
    """Return the newest versions of a model package group, newest first; raise KennelError where AWS refuses."""
    with aws_errors():
        listed = client("sagemaker").list_model_packages(
            ModelPackageGroupName=group, SortBy="CreationTime", SortOrder="Descending", MaxResults=_SHOWN
        )["ModelPackageSummaryList"]
        if not listed:
            return []
        entries = read_entries(client("s3"), bucket)
        reader = _Reader(client, bucket, entries)
        with ThreadPoolExecutor(8) as pool:  # three calls for each version
            return list(pool.map(reader.release, listed))


def read_entries(s3: Any, bucket: str) -> list[Entry]:
    """Return what the keys of all records say, in the order of time."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX)
    entries = [entry for key in pages.search("Contents[].Key") if key and (entry := Entry.of(key))]
    return sorted(entries, key=lambda entry: entry.time)


class _Reader:
    def __init__(self, client: Client, bucket: str, entries: Sequence[Entry]) -> None:
        self._s3, self._sagemaker = client("s3"), client("sagemaker")
        self._bucket, self._entries = bucket, entries

    def release(self, listed: Mapping[str, Any]) -> Release:
        arn, version = listed["ModelPackageArn"], int(listed["ModelPackageVersion"])
        about = self._sagemaker.describe_model_package(ModelPackageName=arn)
        state, entry = state_of(version, about["ModelApprovalStatus"], self._entries)
        approved = next((one for one in self._of(version) if one.state == "approved"), None)
        what, approval = self._read(entry), self._read(approved)
        why = what.get("why", "")
        if about["ModelApprovalStatus"] == "Rejected" and state in ("live", "rejected"):
            why = about.get("ApprovalDescription") or why  # what was said last
            why = f"rejected, but still served: {why}" if state == "live" else why
        return Release(
            version=version,
            arn=arn,
            approval=about["ModelApprovalStatus"],
            registered=about.get("CreationTime"),
            accuracy=_accuracy(about.get("CustomerMetadataProperties", {})),
            state=state,
            since=what.get("at", ""),
            approved_at=approval.get("at", ""),
            approved_by=approval.get("by", ""),
            why=one_line(why),
            alarm=what.get("alarm", ""),
        )

    def _of(self, version: int) -> list[Entry]:
        """Return the version's entries, newest first."""
        return [one for one in reversed(self._entries) if one.version == version]

    def _read(self, entry: Entry | None) -> dict[str, Any]:
        if entry is None:
            return {}
        found: dict[str, Any] = json.loads(self._s3.get_object(Bucket=self._bucket, Key=entry.key)["Body"].read())
        return found


def state_of(version: int, approval: str, entries: Sequence[Entry]) -> tuple[str, Entry | None]:
    """Return a version's state and the entry that began it; `entries` are those of all versions, in order of time."""
    own = [entry for entry in entries if entry.version == version]
    if not own:
        return {"Approved": "approved", "Rejected": "rejected"}.get(approval, "waiting"), None
    last = own[-1]
    if last.state == "rejected" and len(own) > 1 and own[-2].state in FAILED:
        return own[-2].state, own[-2]  # the rejection is what follows a failure
    live = [entry for entry in entries if entry.state == "live"][-1:]
    if live and live[0].version == version and last.state in ("approved", "rejected"):
        return "live", live[0]  # until another version is
    if last.state == "live" and live[0].version != version:
        return "superseded", live[0]
    if last.state == "approved" and approval != "Approved":
        return "waiting", None  # the approval was taken back
    if last.state == "approved" and (passed := _passed_over(last, entries)):
        return "superseded", passed
    return last.state, last


def _passed_over(approved: Entry, entries: Iterable[Entry]) -> Entry | None:
    """Return the release of a version that was approved later, if one began: the newest approval wins."""
    later: dict[int, Entry] = {}
    for entry in entries:
        if entry.version == approved.version or entry.at <= approved.at:
            continue
        if entry.state == "approved":
            later[entry.version] = entry
        elif entry.state == "releasing" and entry.version in later:
            return entry
    return None


def _accuracy(metadata: Mapping[str, str]) -> dict[str, float]:
    """Return the accuracy on the test split with its 95 % interval, where the package's metadata say them."""
    try:
        value, count = float(metadata["accuracy"]), int(metadata["test_samples"])
    except (KeyError, ValueError):
        return {}
    low, high = interval(value, count)
    return {"value": value, "low": low, "high": high}


def last_live(entries: Sequence[Entry], releases: Sequence[Release]) -> list[Release]:
    """Return the versions that were live and may be again, the one that was live last first."""
    order = [entry.version for entry in reversed(entries) if entry.state == "live"]
    known = {one.version: one for one in releases if one.approval != "Rejected"}
    return [known[version] for version in dict.fromkeys(order) if version in known]


# ---- Commands
def releases(stage: Stage = "Dev", as_json: AsJson = False) -> None:
    """Show each version of the model: who approved it and when, how good it is, what became of it and why.

    [bold]Examples[/]

      kennel releases --stage Prod
    """
    found = gather(client, *_places(stage))
    if as_json:
        return print_json([asdict(one) for one in found])
    console = Console(highlight=False)
    if not found:
        return say(console, f"No model is registered yet: `kennel upload FOLDER --stage {stage}`.")
    show(console, found)


def approve(
    version: Version,
    stage: Stage = "Dev",
    why: Why = "Approved by hand.",
) -> None:
    """Approve a version, which releases it; an older one, or one that was rolled back, too.

    [bold]Examples[/]

      kennel approve 7 --stage Prod
    """
    give_approval(client, _arn(client, stage, version), why)
    say(
        Console(highlight=False), f"Version {version} is approved: `kennel releases --stage {stage}` shows its release."
    )


def reject(
    version: Version,
    why: Why,
    stage: Stage = "Dev",
) -> None:
    """Reject a version, so that nothing releases it; one that is served stays until another is (kennel rollback).

    [bold]Examples[/]

      kennel reject 7 --why "Mixes up poodles and sheep." --stage Prod
    """
    _set_approval(client, _arn(client, stage, version), "Rejected", why)
    say(Console(highlight=False), f"Version {version} is rejected.")


def rollback(
    stage: Stage = "Dev",
    why: Why = "Rolled back by hand.",
) -> None:
    """Go back to the version that was live before, and reject the one that is.

    [bold]Examples[/]

      kennel rollback --stage Prod --why "Customers complain."
    """
    group, bucket = _places(stage)
    found = gather(client, group, bucket)
    if under_way := next((one for one in found if one.state in ("releasing", "baking")), None):
        stop = f"aws cloudformation cancel-update-stack --stack-name {stack_name(stage, 'Hosting')}"
        raise KennelError(f"Version {under_way.version} is being released: wait for its end, or stop it with `{stop}`.")
    live = next((one for one in found if one.state == "live"), None)
    if live is None:
        raise KennelError(f"No version is live: `kennel releases --stage {stage}` shows what there is.")
    with aws_errors():
        before = [one for one in last_live(read_entries(client("s3"), bucket), found) if one.version != live.version]
    if not before:
        raise KennelError(f"No version was live before version {live.version}: approve another with `kennel approve`.")
    # In this order: if the first call fails, nothing has changed.
    give_approval(client, before[0].arn, f"Rolled back to, in place of version {live.version}: {why}"[:_LONGEST_WHY])
    _set_approval(client, live.arn, "Rejected", why)
    said = f"Version {live.version} is rejected and version {before[0].version} approved in its place"
    say(Console(highlight=False), f"{said}: `kennel releases --stage {stage}` shows its release.")


def give_approval(client: Client, arn: str, why: str) -> None:
    """Approve a model package so that it is an event, also where it is approved already; raise KennelError."""
    with aws_errors():
        about = client("sagemaker").describe_model_package(ModelPackageName=arn)
    if about["ModelPackageStatus"] != "Completed":
        raise KennelError(f"{arn} is {about['ModelPackageStatus']}; a model can be approved once it is Completed.")
    if about["ModelApprovalStatus"] == "Approved":
        _set_approval(client, arn, "PendingManualApproval", why)
    _set_approval(client, arn, "Approved", why)


def _set_approval(client: Client, arn: str, status: str, why: str) -> None:
    with aws_errors():
        client("sagemaker").update_model_package(
            ModelPackageArn=arn, ModelApprovalStatus=status, ApprovalDescription=why
        )


def _places(stage: str) -> tuple[str, str]:
    """Return the stage's model package group and its data bucket."""
    return output(stage, "Data", "ModelPackageGroupName"), output(stage, "Data", "DataBucketName")


def _arn(client: Client, stage: str, version: int) -> str:
    group = output(stage, "Data", "ModelPackageGroupName")
    with aws_errors():
        pages = client("sagemaker").get_paginator("list_model_packages").paginate(ModelPackageGroupName=group)
        for one in pages.search("ModelPackageSummaryList[]"):
            if one["ModelPackageVersion"] == version:
                return str(one["ModelPackageArn"])
    raise KennelError(
        f"There is no version {version} in {stage}: `kennel releases --stage {stage}` shows what there is."
    )


def show(console: Console, found: Sequence[Release]) -> None:
    """Print a table, and below it the reason of each state that has one."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("version", "state", "since", "approved", "accuracy (95 %)"):
        shown.add_column(title)
    for one in found:
        state = Text(one.state.replace("_", " "), "red" if one.state in FAILED else _STYLES.get(one.state, ""))
        approved = " ".join(filter(None, (_minute(one.approved_at), _short(one.approved_by))))
        shown.add_row(str(one.version), state, _minute(one.since), Text(approved), _percent(one.accuracy))
    console.print(shown)
    say(console, *(f"Version {one.version}: {one.sentence}: {one.why}" for one in found if one.why))


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")


def _short(arn: str) -> str:
    """Return the name at the end of an identity's ARN: user/anna, assumed-role/Admin/anna."""
    return arn.rpartition(":")[2].removeprefix("assumed-role/").removeprefix("user/")


def _percent(accuracy: Mapping[str, float]) -> str:
    return "{value:.1%} ({low:.1%} to {high:.1%})".format(**accuracy) if accuracy else ""
