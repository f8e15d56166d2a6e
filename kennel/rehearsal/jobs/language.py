"""The values of the pipeline language: parameters, step properties, Std:Join, Std:JsonGet, execution variables."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from kennel.rehearsal.jobs.events import DefinitionError

_PART = re.compile(r"\.?([^.\[\]]+)|\[(?:'([^']*)'|\"([^\"]*)\"|(\d+))\]")
_NAMES = ("OutputName", "PropertyFileName", "ChannelName", "InputName", "Name", "Key")  # what a list is indexed by


class Values:
    """Resolves expressions. `properties` grows by one entry a step that succeeded; `read` fetches an s3:// file."""

    def __init__(
        self, parameters: Mapping[str, Any], variables: Mapping[str, Any], read: Callable[[str], bytes]
    ) -> None:
        self.properties: dict[str, Mapping[str, Any]] = {}
        self._roots: dict[str, Mapping[str, Any]] = {
            "Parameters": parameters,
            "Execution": variables,
            "Steps": self.properties,
        }
        self._read = read

    def resolve(self, value: Any) -> Any:
        """`value` with every expression in it replaced; raises DefinitionError naming what is not known."""
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, body) = next(iter(value.items()))
            kinds: dict[str, Callable[[Any], Any]] = {
                "Get": self._get,
                "Std:Join": self._join,
                "Std:JsonGet": self._json,
            }
            if name in kinds:
                return kinds[name](body)
        return {key: self.resolve(item) for key, item in value.items()}

    def _get(self, path: str) -> Any:
        root, _, rest = path.partition(".")
        if root not in self._roots:
            raise DefinitionError(f"{path!r} begins with none of {', '.join(self._roots)}.")
        return walk(self._roots[root], rest, path)

    def _join(self, body: Mapping[str, Any]) -> str:
        return str(body["On"]).join(text(item) for item in self.resolve(body["Values"]))

    def _json(self, body: Mapping[str, Any]) -> Any:
        reference = body["PropertyFile"]
        file = self.resolve(reference if isinstance(reference, dict) else {"Get": reference})
        uri = file["S3Uri"]
        try:
            content = json.loads(self._read(uri))
        except ValueError as error:
            raise DefinitionError(f"The property file {uri} is no JSON: {error}.") from None
        return walk(content, body["Path"], f"{body['Path']} in {uri}")


def walk(value: Any, path: str, whole: str) -> Any:
    """Follow `a.b[0]['name']` into `value`; a list can be indexed by the name that its items carry."""
    position = 0
    while position < len(path):
        match = _PART.match(path, position)
        if not match:
            raise DefinitionError(f"{whole!r} cannot be read from {path[position:]!r} on.")
        value = _member(value, next(part for part in match.groups() if part is not None), whole)
        position = match.end()
    return value


def _member(value: Any, key: str, whole: str) -> Any:
    if isinstance(value, Mapping) and key in value:
        return value[key]
    if isinstance(value, list):
        if key.isdigit() and int(key) < len(value):
            return value[int(key)]
        for item in value:
            if isinstance(item, Mapping) and key in (item.get(name) for name in _NAMES):
                return item
    known = ", ".join(map(str, value)) if isinstance(value, Mapping) else type(value).__name__
    raise DefinitionError(f"{whole!r} does not exist: no {key!r} in ({known}).")


def text(value: Any) -> str:
    """A value as SageMaker writes it into a string: booleans in lower case."""
    return str(value).lower() if isinstance(value, bool) else str(value)
