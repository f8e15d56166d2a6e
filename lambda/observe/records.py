"""The records of releases: write-once objects whose keys say version, time and state."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

PREFIX = "releases/"
_KEY = re.compile(rf"{PREFIX}([0-9]{{6,}})/([0-9]{{8}}T[0-9]{{6}}\.[0-9]{{3}}Z)-([a-z_]+)\.json")
_TOKEN = re.compile(r"release-([0-9]+)-([0-9]+)")
# After these nothing releases the version until somebody approves it again.
UNFIT = ("rolled_back", "failed", "diverged", "rejected")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One thing that happened to one version; docs/contracts/release.schema.json describes the members."""

    version: int
    model_package: str
    state: str  # approved, rejected, releasing, baking, live, rolled_back, failed or diverged
    at: str  # ISO 8601 with milliseconds, UTC
    by: str = ""  # ARN of who approved or rejected it
    why: str = ""
    alarm: str = ""  # which rang
    token: str = ""  # ClientRequestToken of the stack update

    @property
    def key(self) -> str:
        """Return the object's key; an event that comes twice gives the same one."""
        return f"{PREFIX}{self.version:06}/{re.sub('[-:]', '', self.at)}-{self.state}.json"


@dataclass(frozen=True, order=True)
class Entry:
    """What a record's key says; entries are ordered by time."""

    at: str  # 20261130T163005.000Z
    state: str
    version: int

    @classmethod
    def of(cls, key: str) -> Self | None:
        """Return what `key` says, or None for the key of something else."""
        found = _KEY.fullmatch(key)
        return cls(found[2], found[3], int(found[1])) if found else None


@dataclass(frozen=True)
class Token:
    """The token with which promote updates the stack: which version, and the digits of when it was approved."""

    version: int
    approved: str

    @classmethod
    def of(cls, text: str) -> Self | None:
        """Return the release that `text` names, or None for the token of another update."""
        found = _TOKEN.fullmatch(text)
        return cls(int(found[1]), found[2]) if found else None


def timestamp(when: datetime) -> str:
    """Return a time as records have it."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_time(given: Any) -> datetime:
    """Return the time that an event gives: ISO 8601, or milliseconds since 1970 as SageMaker writes it, or seconds."""
    if isinstance(given, int | float):
        return datetime.fromtimestamp(given / 1000 if given > 1e11 else given, UTC)
    return datetime.fromisoformat(str(given))


def last_live(entries: Iterable[Entry], but: int) -> int | None:
    """Return the version that was live last and is not unfit by now, `but` that one; None where there is none."""
    newest: dict[int, Entry] = {}
    live: dict[int, Entry] = {}
    for entry in sorted(entries):
        newest[entry.version] = entry
        if entry.state == "live":
            live[entry.version] = entry
    fit = [entry for version, entry in live.items() if version != but and newest[version].state not in UNFIT]
    return max(fit).version if fit else None


def approved_again(entries: Iterable[Entry], token: Token) -> bool:
    """Return whether the version was approved once more after the approval that the token names."""
    seconds = len("20261130163005")
    return any(
        entry.version == token.version
        and entry.state == "approved"
        and re.sub("[^0-9]", "", entry.at)[:seconds] > token.approved[:seconds]
        for entry in entries
    )
