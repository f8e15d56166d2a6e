"""One embedded AWS a module: each module's own `world` puts into it what its tests need."""

from collections.abc import Iterator

import pytest

from tests.rehearsal.cloud_world import World


@pytest.fixture(scope="module")
def empty_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("cloud"))
    with world.cloud:
        yield world
