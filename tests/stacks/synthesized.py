"""The app as synthesized once for all tests, and questions about its templates."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Synthesized:
    """A cloud assembly in `folder`."""

    folder: Path

    def rooms(self, stage: str) -> list[str]:
        """The rooms of a stage that have a stack, sorted."""
        return sorted(artifact["displayName"].split("/")[1] for artifact in self.artifacts(stage))

    def template(self, stage: str, room: str) -> Json:
        """The template of the stack `<stage>-<room>`."""
        file = next(each for each in self.artifacts(stage) if each["displayName"] == f"{stage}/{room}")["properties"][
            "templateFile"
        ]
        return _read(self.folder / f"assembly-{stage}" / file)

    def resources(self, stage: str, room: str, type_: str) -> dict[str, Json]:
        """Logical id -> resource, of one type."""
        resources = self.template(stage, room)["Resources"]
        return {id_: each for id_, each in resources.items() if each["Type"] == type_}

    def only(self, stage: str, room: str, type_: str) -> Json:
        """The properties of the one resource of that type."""
        (resource,) = self.resources(stage, room, type_).values()
        properties: Json = resource["Properties"]
        return properties

    def statements(self, stage: str, room: str) -> list[tuple[str, Json]]:
        """(role, statement) for every statement of the room's roles; the trust policies are not among them."""
        found = []
        for policy in self.resources(stage, room, "AWS::IAM::Policy").values():
            (role,) = policy["Properties"]["Roles"]
            found += [(role["Ref"], each) for each in policy["Properties"]["PolicyDocument"]["Statement"]]
        for id_, role in self.resources(stage, room, "AWS::IAM::Role").items():
            for inline in role["Properties"].get("Policies", []):
                found += [(id_, each) for each in inline["PolicyDocument"]["Statement"]]
        return found

    def definition(self, stage: str) -> Json:
        """The pipeline's definition; what only CloudFormation knows reads `<...>`."""
        body = self.only(stage, "Pipeline", "AWS::SageMaker::Pipeline")["PipelineDefinition"]["PipelineDefinitionBody"]
        parsed: Json = json.loads(text(body))
        return parsed

    def artifacts(self, stage: str) -> list[Json]:
        """The manifest's entries of the stage's stacks."""
        artifacts = _read(self.folder / f"assembly-{stage}" / "manifest.json")["artifacts"]
        return [each for each in artifacts.values() if each["type"] == "aws:cloudformation:stack"]


def text(value: Any) -> str:
    """A string in which Fn::Join is carried out and every other reference reads `<Stack.Output>`, `<Ref>` and so on."""
    if isinstance(value, str):
        return value
    ((function, argument),) = value.items()
    if function == "Fn::Join":
        return str(argument[0]).join(text(part) for part in argument[1])
    if function == "Fn::GetStackOutput":
        return f"<{argument['StackName']}.{argument['OutputName']}>"
    if function == "Fn::ImportValue":
        return f"<{argument.replace(':', '.')}>"
    parts = argument if isinstance(argument, list) else [argument]
    return f"<{'.'.join(text(part) if isinstance(part, dict) else str(part) for part in parts)}>"


def flat(steps: list[Json]) -> Iterator[Json]:
    for step in steps:
        yield step
        if step["Type"] == "Condition":
            yield from flat(step["Arguments"]["IfSteps"])
            yield from flat(step["Arguments"]["ElseSteps"])


def by_name(definition: Json) -> dict[str, Json]:
    return {step["Name"]: step for step in flat(definition["Steps"])}


def resolved(value: Any, parameters: dict[str, Any]) -> Any:
    """`value` as the service sees it at run time; what a step or the execution answers reads `<...>`."""
    if isinstance(value, list):
        return [resolved(each, parameters) for each in value]
    if not isinstance(value, dict):
        return value
    if "Get" in value:
        kind, _, name = value["Get"].partition(".")
        return parameters[name] if kind == "Parameters" else f"<{value['Get']}>"
    if "Std:JsonGet" in value:
        return f"<{value['Std:JsonGet']['Path']}>"
    if "Std:Join" in value:
        return value["Std:Join"]["On"].join(str(resolved(each, parameters)) for each in value["Std:Join"]["Values"])
    return {key: resolved(each, parameters) for key, each in value.items()}


def defaults(definition: Json) -> dict[str, Any]:
    manifest = {"DataManifest": "datasets/dogs/0123456789abcdef.manifest"}
    return manifest | {
        each["Name"]: each.get("DefaultValue", manifest.get(each["Name"])) for each in definition["Parameters"]
    }


def _read(file: Path) -> Json:
    parsed: Json = json.loads(file.read_text())
    return parsed
