"""One embedded AWS for each test, and the environment that the stack would set."""

from collections.abc import Iterator
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest

from observe import aws
from tests.functions.observe.account import GROUP, Account
from tests.rehearsal.cloud.world import World


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    world = World(tmp_path)
    with world.cloud:
        account = Account(world)
        names = {"HOSTING_STACK": "Hosting", "ENDPOINT_NAME": "kennel-dev", "MODEL_PACKAGES": GROUP}
        names |= {"RECORDS_BUCKET": "records", "ALARM_TOPIC": account.topic}
        for name, value in {**names, **world.cloud.environment()}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # which keeps the keys of the run before
        aws._client.cache_clear()
        yield account
        aws._client.cache_clear()
