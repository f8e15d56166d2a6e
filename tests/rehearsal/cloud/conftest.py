"""One embedded AWS for each module, into which the module's own fixture `world` puts what its tests need."""

from collections.abc import Iterator

import pytest

from tests.rehearsal.cloud.world import World


@pytest.fixture(scope="module")
def empty_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("cloud"))
    with world.cloud:
        yield world
