"""Reads a cloud assembly (cdk.out): the stacks of one stage in the order of their dependencies, and their assets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from kennel.errors import KennelError


@dataclass(frozen=True)
class Asset:
    """A file, or a folder to be zipped, and the key it gets in the bootstrap bucket."""

    source: Path
    zipped: bool
    bucket: str
    key: str


@dataclass(frozen=True)
class StackFile:
    name: str
    template: Path
    parameters: dict[str, str]
    assets: tuple[Asset, ...]

    def read(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.template.read_text())
        return content


def stacks_of(assembly: Path, stage: str) -> list[StackFile]:
    """Raises KennelError when `assembly` is no cloud assembly or has no such stage."""
    top = _manifest(assembly)
    stages = {
        about["properties"].get("displayName", name.removeprefix("assembly-")): about["properties"]["directoryName"]
        for name, about in top.items()
        if about["type"] == "cdk:cloud-assembly"
    }
    if stage not in stages:
        known = ", ".join(sorted(stages)) or "none"
        raise KennelError(f"{assembly} has no stage {stage!r}; the stages there are: {known}.")
    folder = assembly / stages[stage]
    artifacts = _manifest(folder)
    stacks = {name: about for name, about in artifacts.items() if about["type"] == "aws:cloudformation:stack"}
    graph = {name: [one for one in about.get("dependencies", []) if one in stacks] for name, about in stacks.items()}
    return [_stack(folder, name, stacks[name], artifacts) for name in TopologicalSorter(graph).static_order()]


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())["artifacts"]
    except (OSError, ValueError, KeyError) as error:
        raise KennelError(f"{folder} is no cloud assembly ({error}): synthesize it with `python app.py`.") from error
    return found


def _stack(folder: Path, name: str, about: dict[str, Any], artifacts: dict[str, Any]) -> StackFile:
    properties = about["properties"]
    manifests = [
        folder / artifacts[one]["properties"]["file"]
        for one in about.get("dependencies", [])
        if artifacts[one]["type"] == "cdk:asset-manifest"
    ]
    assets = tuple(asset for path in manifests for asset in _assets(path))
    return StackFile(
        properties.get("stackName", about.get("displayName", name)),
        folder / properties["templateFile"],
        properties.get("parameters", {}),
        assets,
    )


def _assets(manifest: Path) -> list[Asset]:
    files = json.loads(manifest.read_text()).get("files", {})
    found = []
    for about in files.values():
        place = next(iter(about["destinations"].values()))
        source = (manifest.parent / about["source"]["path"]).resolve()
        zipped = about["source"]["packaging"] == "zip"
        if not source.exists():
            raise KennelError(f"{manifest} names the asset {source}, which is not there: synthesize again.")
        found.append(Asset(source, zipped, place["bucketName"], place["objectKey"]))
    return found
