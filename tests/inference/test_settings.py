"""The environment, and what the image installs."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from inference import __main__ as program
from inference.__main__ import settings_from
from inference.errors import StartError
from inference.runtime_selection import EXPORTS

FOLDER = Path(program.__file__).parent


RUNTIMES = ("openvino", "onnxruntime", "torch")


def pinned(file: str) -> dict[str, str]:
    lines = [line for line in (FOLDER / file).read_text().splitlines() if line[0] != "#"]
    return {name: version for name, version in (line.split("==") for line in lines)}


def pins(runtime: str) -> dict[str, str]:
    return pinned("requirements-common.txt") | pinned(f"requirements-{runtime}.txt")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_an_empty_environment_is_sagemakers() -> None:
    found = settings_from({})
    assert (found.model_dir, found.host, found.port) == (Path("/opt/ml/model"), "0.0.0.0", 8080)
    assert (found.max_bytes, found.max_pixels, found.model_package_arn) == (6_291_456, 50_000_000, "")
    assert (found.endpoint, found.runtime, found.precision, found.threads) == ("", "openvino", "auto", 0)


def test_an_empty_value_counts_as_none() -> None:
    names = ["OPT_ML", "SAGEMAKER_BIND_TO_PORT", "MAX_BYTES", "MAX_PIXELS", "BIND_ADDRESS"]
    names += ["RUNTIME", "PRECISION", "THREADS", "ENDPOINT_NAME"]
    assert settings_from(dict.fromkeys(names, "")) == settings_from({})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "http"),
        ("SAGEMAKER_BIND_TO_PORT", "65536"),
        ("MAX_BYTES", "-1"),
        ("MAX_BYTES", "6e6"),
        ("MAX_PIXELS", "0"),
        ("MAX_PIXELS", "²"),
        ("MAX_PIXELS", "9" * 5000),
        ("THREADS", "1025"),
    ],
)
def test_a_value_that_is_no_number_in_range_is_named(name: str, value: str) -> None:
    with pytest.raises(StartError, match=f"^{name} must be a whole number from "):
        settings_from({name: value})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_pin_is_what_is_tested_here(runtime: str) -> None:
    assert {name: metadata.version(name) for name in pins(runtime)} == pins(runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_pins_hold_everything_that_they_ask_for(runtime: str) -> None:
    """The image installs with --no-deps, so a library that is not named would be missing."""
    named = {normal(name) for name in pins(runtime)} | {"openvino-telemetry"}  # kept out on purpose
    for name in pins(runtime):
        for needed in map(Requirement, metadata.requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert normal(needed.name) in named, f"{name} needs {needed}"


def test_the_build_argument_picks_the_requirements_and_is_what_the_server_reads() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    assert "ARG RUNTIME=openvino\nENV RUNTIME=${RUNTIME}\n" in text
    files = "-r inference/requirements-common.txt -r inference/requirements-${RUNTIME}.txt"
    assert f"{files} && \\\n    python3 inference/slim.py\n" in text
    assert tuple(EXPORTS) == RUNTIMES


def test_the_image_starts_the_server_as_its_first_process() -> None:
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    assert lines[-1] == 'ENTRYPOINT ["python3", "-m", "inference"]'
    assert not [line for line in lines if line.startswith("USER")]


@pytest.mark.parametrize(("name", "value"), [("RUNTIME", "tensorflow"), ("PRECISION", "bf16"), ("PRECISION", "INT8")])
def test_a_word_that_is_none_of_those_known_is_named_with_them(name: str, value: str) -> None:
    with pytest.raises(StartError, match=f"^{name} must be one of .*, not '{value}'"):
        settings_from({name: value})
