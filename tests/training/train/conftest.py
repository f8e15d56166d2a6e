"""What the tests of training share: one thread, and a tiny network in the place of torchvision's."""

import pytest


@pytest.fixture(autouse=True)
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.training.train import jobs

    monkeypatch.setattr("training.train.context.build_network", jobs.tiny_network)
    monkeypatch.setattr("training.train.head.backbone.convert", jobs.convert_once)
