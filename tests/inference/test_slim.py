"""What is left of the image's packages when the unused parts are gone: small, and still a server."""

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from inference import slim
from tests.inference.test_settings import FOLDER, pins
from tests.inference.tiny import Server, environment, listening, picture

LIMIT = 180e6  # bytes, compiled files included


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pip would install them in the image; links, since nothing is changed but removed."""
    folder = tmp_path_factory.mktemp("site")
    site = Path(str(distribution("openvino").locate_file(""))).resolve()
    for name in pins("openvino"):
        for file in distribution(name).files or ():
            source = Path(str(file.locate())).resolve()
            if source.is_file() and source.is_relative_to(site):
                target = folder / source.relative_to(site)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, target)
    subprocess.run([sys.executable, FOLDER / "slim.py", folder], check=True, capture_output=True)
    return folder


@pytest.fixture
def slim_server(installed: Path, opt_ml: Path) -> Iterator[Server]:
    """Isolated from this environment's own packages."""
    code = f"import sys; sys.path[:0] = [{str(FOLDER.parent)!r}, {str(installed)!r}]"
    code += "; import runpy; sys.argv = ['inference']; runpy.run_module('inference', run_name='__main__')"
    command = [sys.executable, "-I", "-S", "-c", code]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, env=environment(opt_ml), stdout=pipe, stderr=pipe, text=True)
    yield Server(process, listening(process))
    process.kill()
    process.communicate()


def test_the_packages_take_at_most_180_megabytes(installed: Path) -> None:
    assert slim.size(installed) <= LIMIT


def test_what_is_left_serves_each_kind_of_picture(slim_server: Server) -> None:
    kinds = ("JPEG", "PNG", "WEBP", "GIF")
    assert [slim_server.classify(picture(kind)).status for kind in kinds] == [200] * 4
    assert slim_server.classify(picture("AVIF")).status == 415
    assert slim_server.stop()[0] == 0


def test_nothing_unused_is_left_and_every_pattern_finds_something() -> None:
    site = Path(str(distribution("openvino").locate_file("")))
    assert [pattern for pattern in (*slim.UNUSED, *slim.KEPT) if not list(site.glob(pattern))] == []


def test_parts_of_what_goes_as_a_whole_are_not_named_again(tmp_path: Path) -> None:
    for name in ("numpy/tests/a.pyi", "numpy/b.pyi", "openvino/libs/libopenvino_ir_frontend.so.1", "other/tests/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [path.relative_to(tmp_path).as_posix() for path in slim.unused(tmp_path)] == ["numpy/b.pyi", "numpy/tests"]
