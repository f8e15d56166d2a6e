"""The folders of the container contract, and a processing job that must fail."""

from collections.abc import Callable
from pathlib import Path

import pytest

from training.__main__ import main
from training.paths import Paths


@pytest.fixture
def opt_ml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("OPT_ML", str(tmp_path / "ml"))
    return Paths.from_environment()


@pytest.fixture
def refused(opt_ml: Paths, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a processing job, which must fail with one sentence and no traceback; return the sentence."""

    def run(command: str = "prepare", *options: str) -> str:
        assert main([command, *options]) == 1
        message = (opt_ml.output / "message").read_text("utf-8")
        assert capsys.readouterr().err == message
        assert message.count("\n") == 1
        return message

    return run
