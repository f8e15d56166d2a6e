"""The app is synthesized once, without the validations that test_synth.py runs."""

from collections.abc import Iterator

import pytest

from app import build
from tests.stacks.synthesized import Synthesized


@pytest.fixture(scope="session")
def synth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synthesized]:
    """Both stages' cloud assembly."""
    folder = tmp_path_factory.mktemp("cdk.out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDK_VALIDATION", "false")
        build(str(folder)).synth()
    yield Synthesized(folder)


@pytest.fixture(scope="session", params=["Dev", "Prod"])
def stage(request: pytest.FixtureRequest) -> str:
    """Each stage in turn."""
    return str(request.param)
