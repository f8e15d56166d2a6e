"""Hyperparameters arrive as strings; a bad one is refused with what would work."""

import argparse
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from training import hyperparameters
from training.hyperparameters import HyperparameterError, Hyperparameters, add_arguments, describe


def test_settings_survive_the_way_through_strings() -> None:
    settings = Hyperparameters(model="resnet18", learning_rate=0.1, epochs=3)
    assert Hyperparameters.from_strings(settings.to_strings()) == settings


def test_values_keep_their_types_and_lose_json_quotes() -> None:
    settings = Hyperparameters.from_strings({"epochs": "3", "learning_rate": '"0.5"', "model": '"resnet34"'})
    assert (settings.epochs, settings.learning_rate, settings.model) == (3, 0.5, "resnet34")


def test_what_sagemaker_adds_is_passed_over() -> None:
    assert Hyperparameters.from_strings({"sagemaker_region": "x", "_tuning_objective_metric": "y"}) == Hyperparameters()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epoch", "3", "Unknown hyperparameter 'epoch'; known are model, mode"),
        ("epochs", "three", "epochs must be a whole number, not 'three'"),
        ("epochs", "1.5", "epochs must be a whole number"),
        ("epochs", "0", "epochs must lie between 1 and 10000, not 0"),
        ("learning_rate", "nan", "learning_rate must lie between"),
        ("learning_rate", "-1", "learning_rate must lie between"),
        ("learning_rate", "fast", "learning_rate must be a number"),
        ("image_size", "8", "image_size must lie between 16 and 1024"),
        ("model", "vgg", "model must be one of resnet18, resnet34"),
        ("mode", "", "mode must be one of auto, head, whole"),
        ("int8", "never", "int8 must be one of auto, yes, no"),
        ("int8_loss", "98", "int8_loss must lie between 0 and 1"),
        ("int8_loss", "nan", "int8_loss must lie between 0 and 1"),
        ("runtime", "tensorrt", "runtime must be one of openvino, onnxruntime, torch"),
        ("batch_size", "99999999", "batch_size must lie between"),
    ],
)
def test_a_bad_value_is_refused_with_what_would_work(name: str, value: str, message: str) -> None:
    with pytest.raises(HyperparameterError, match=message):
        Hyperparameters.from_strings({name: value})


def test_the_command_line_has_one_option_for_each_setting_and_no_defaults_of_its_own() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert vars(parser.parse_args([])) == {}
    options = [f"--{name.replace('_', '-')}=1" for name in Hyperparameters().to_dict()]
    assert set(vars(parser.parse_args(options))) == set(Hyperparameters().to_dict())


def test_the_help_names_the_only_mode_in_which_a_setting_has_an_effect() -> None:
    modes = {declared.name: describe(declared).partition(" mode only: ")[0] for declared in fields(Hyperparameters)}
    assert [name for name, mode in modes.items() if mode == "head and finetune"] == ["views", "trials"]
    assert [name for name, mode in modes.items() if mode == "whole and finetune"] == ["mixup", "ema", "compile"]


def test_what_the_cdk_app_imports_loads_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, training.hyperparameters, training.metrics;"
        "print([m for m in ('numpy', 'torch', 'PIL', 'openvino') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_hyperparameter_is_read_somewhere_in_the_training_program() -> None:
    program = "".join(file.read_text() for file in Path(hyperparameters.__file__).parent.rglob("*.py"))
    assert [name for name in Hyperparameters().to_dict() if f"settings.{name}" not in program] == []
