"""The app is synthesized once, without the validations that test_synth.py runs."""

import pytest

from tests.stacks.synthesized import Json, Synthesized, by_name


@pytest.fixture(scope="session")
def synth(tmp_path_factory: pytest.TempPathFactory) -> Synthesized:
    """Both stages' cloud assembly."""
    from app import build

    folder = tmp_path_factory.mktemp("cdk.out")
    build(str(folder)).synth()
    return Synthesized(folder)


@pytest.fixture(scope="session", params=["Dev", "Prod"])
def stage(request: pytest.FixtureRequest) -> str:
    """Each stage in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def definition(synth: Synthesized, stage: str) -> Json:
    return synth.definition(stage)


@pytest.fixture(scope="session")
def steps(definition: Json) -> dict[str, Json]:
    return by_name(definition)
