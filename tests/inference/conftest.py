"""The real server in a process of its own."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.inference.tiny import Server, listening, start, write_model


@pytest.fixture(scope="session")
def opt_ml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opt_ml")
    write_model(folder / "model")
    return folder


@pytest.fixture
def launch(opt_ml: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the test."""
    started: list[subprocess.Popen[str]] = []

    def launched(folder: Path = opt_ml, **more: str) -> Server:
        started.append(start(folder, **more))
        return Server(started[-1], listening(started[-1]))

    yield launched
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(opt_ml: Path) -> Iterator[Server]:
    process = start(opt_ml, MODEL_PACKAGE_ARN="arn:aws:sagemaker:::model-package/kennel-dev/7")
    yield Server(process, listening(process))
    process.kill()
    process.communicate()
