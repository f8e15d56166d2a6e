"""The options of `kennel train`: hyperparameters from their one declaration, and a check that all go together."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from kennel.errors import KennelError
from training.hyperparameters import (
    HyperparameterError,
    Hyperparameters,
    describe,
    option_name,
    parameter_name,
    settable,
)

_AWS_ONLY = {"dataset": "DATASET", "instance_type": "--instance-type", "spot": "--spot", "settings": "--set"}
_AWS_ONLY |= {"detach": "--detach", "follow": "--follow"}
_START_ONLY = {**_AWS_ONLY, "instances": "--instances", "tune": "--tune", "duplicates": "--duplicates"}
_START_ONLY |= {"weights": "--weights", "hyperparameters": "hyperparameters"}


def with_hyperparameters(panel: str, defaults: Mapping[str, str] | None = None) -> Callable[[Any], Callable[..., None]]:
    """Give a command one option for each hyperparameter; those given become its argument `hyperparameters`.

    `defaults` (texts by field name) hold for what is not given. A value that cannot work is wrong usage (exit code 2),
    before anything is started.
    """

    def decorate(command: Any) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            values = {declared.name: given.pop(declared.name) for declared in settable()}
            chosen = {name: value for name, value in values.items() if value is not None}
            check_hyperparameters(chosen)
            command(hyperparameters=chosen, **given)

        signature = inspect.signature(command)
        own = [one for name, one in signature.parameters.items() if name != "hyperparameters"]
        options = [_parameter(declared, panel, (defaults or {}).get(declared.name)) for declared in settable()]
        wrapper.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {one.name: one.annotation for one in [*own, *options]}
        return wrapper

    return decorate


def check_hyperparameters(values: Mapping[str, str]) -> None:
    """Raise BadParameter, which is exit code 2, with the sentence of the first value that cannot work."""
    try:
        Hyperparameters.from_strings(values)
    except HyperparameterError as error:
        raise typer.BadParameter(str(error)) from None


def _parameter(declared: Field[Any], panel: str, default: str | None) -> inspect.Parameter:
    choices, text = declared.metadata["choices"], describe(declared)
    metavar = "|".join(choices) or {int: "N", float: "X"}[type(declared.default)]
    if len(choices) >= 4:
        metavar, text = "NAME", f"{text} ({', '.join(choices)})"
    option = typer.Option(
        option_name(declared),
        help=f"{text[0].upper()}{text[1:]}.",
        rich_help_panel=panel,
        metavar=metavar,
        show_default=default is not None,
    )
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(declared.name, kind, default=default, annotation=Annotated[str | None, option])


@dataclass(frozen=True, kw_only=True)
class Request:
    """`hyperparameters` by field name, as texts; what was not given is None or empty."""

    hyperparameters: Mapping[str, str]
    dataset: str
    stage: str
    instances: int | None
    tune: int | None
    duplicates: str | None
    as_json: bool
    instance_type: str | None
    spot: bool
    settings: list[str] | None
    yes: bool
    detach: bool
    follow: str
    local: Path | None
    weights: Path | None
    runs: Path
    resume: str

    def __post_init__(self) -> None:
        if self.here and (wrong := self._given(_AWS_ONLY)):
            raise KennelError(f"{wrong} is for runs on AWS, not for one on this machine.")
        if self.resume and (wrong := self._given({**_START_ONLY, "local": "--local"})):
            raise KennelError(f"{wrong} does not go with --resume: a run keeps its own.")
        if self.follow and (wrong := self._given(_START_ONLY, but="follow")):
            raise KennelError(f"{wrong} does not go with --follow: that run has started.")
        if not self.here and self.weights:
            raise KennelError("On AWS the weights travel with the data: `kennel upload FOLDER --weights FILE`.")

    @property
    def here(self) -> bool:
        return self.local is not None or bool(self.resume)

    def pipeline_parameters(self) -> dict[str, str]:
        """Return what was given as StartPipelineExecution takes it; a `--set` wins over an option of its own."""
        options = {
            "InstanceType": self.instance_type,
            "InstanceCount": self.instances,
            "Spot": "true" if self.spot else None,
            "TuneTrials": self.tune,
            "Duplicates": self.duplicates,
        }
        found = {parameter_name(name): value for name, value in self.hyperparameters.items()}
        found |= {name: str(value) for name, value in options.items() if value is not None}
        for pair in self.settings or ():
            name, equals, value = pair.partition("=")
            if not (name and equals):
                raise KennelError(f"--set takes Name=Value, such as Epochs=3, not {pair!r}.")
            found[name] = value
        return found

    def _given(self, names: Mapping[str, str], but: str = "") -> str:
        return next((shown for name, shown in names.items() if name != but and getattr(self, name)), "")
