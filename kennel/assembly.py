"""Reads a cloud assembly (cdk.out): the stacks of a stage, their templates and their assets."""

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
    """A stack as the assembly describes it."""

    name: str
    template: Path
    parameters: dict[str, str]
    tags: dict[str, str]
    bootstrap_version: int  # of the bootstrap stack that it needs at least, 0: any
    assets: tuple[Asset, ...]

    def read(self) -> dict[str, Any]:
        """Return the template."""
        content: dict[str, Any] = json.loads(self.template.read_text())
        return content


def stacks_of(assembly: Path, stage: str) -> list[StackFile]:
    """Return the stacks of `stage`, each after those that it depends on.

    Raises KennelError when `assembly` is no cloud assembly, has no such stage, or lacks an asset.
    """
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
        raise KennelError(f"{folder} is no cloud assembly ({error}): run `make synth` first.") from error
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
        properties.get("tags", {}),
        int(properties.get("requiresBootstrapStackVersion", 0)),
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
