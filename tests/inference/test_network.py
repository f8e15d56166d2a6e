"""The network answers with probabilities, in the precision in which it was evaluated."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inference import artifact, network
from inference.errors import StartError
from tests.inference.tiny import write_model

IMAGE = np.stack([np.full((32, 32), value, np.float32) for value in (1.0, 2.0, 3.0)])  # [3, 32, 32]


def test_logits_become_probabilities(tmp_path: Path) -> None:
    answer = network.Network(artifact.load(write_model(tmp_path))).infer(IMAGE)
    odds = np.exp([1.0, 2.0, 3.0])
    assert answer == pytest.approx(odds / odds.sum(), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1, 20])
def test_the_temperature_divides_the_logits(tmp_path: Path, temperature: float) -> None:
    found = replace(artifact.load(write_model(tmp_path)), temperature=temperature)
    odds = np.exp(np.array([1.0, 2.0, 3.0]) / temperature)
    assert network.Network(found).infer(IMAGE) == pytest.approx(odds / odds.sum(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_no_temperature_makes_probabilities_overflow(tmp_path: Path) -> None:
    found = replace(artifact.load(write_model(tmp_path, weights=np.eye(3) * 1e30)), temperature=1e-300)
    assert network.Network(found).infer(IMAGE).tolist() == [0.0, 0.0, 1.0]


def test_large_logits_do_not_overflow(tmp_path: Path) -> None:
    answer = network.Network(artifact.load(write_model(tmp_path, weights=np.eye(3) * 1e6))).infer(IMAGE)
    assert answer.tolist() == [0.0, 0.0, 1.0]


def test_numbers_are_32_bits_wide_whatever_the_processor_offers(tmp_path: Path) -> None:
    found = network.Network(artifact.load(write_model(tmp_path)))
    model = found._request.get_compiled_model()
    assert model.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"


def test_threads_at_once_get_their_own_answers(tmp_path: Path) -> None:
    shared = network.Network(artifact.load(write_model(tmp_path)))
    wrong: list[float] = []

    def ask(scale: float) -> None:
        expected = np.exp(scale * np.array([1.0, 2.0, 3.0]))
        for _ in range(50):
            wrong.extend(np.abs(shared.infer(IMAGE * np.float32(scale)) - expected / expected.sum()) > 1e-5)

    threads = [threading.Thread(target=ask, args=(scale,)) for scale in (0.1, 0.2, 0.3, 0.4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 600
    assert not any(wrong)


def test_an_inference_that_does_not_come_back_is_unhealthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, go = network.Network(artifact.load(write_model(tmp_path))), threading.Event()
    monkeypatch.setattr(network, "_STUCK_AFTER", 0.05)
    monkeypatch.setattr(stuck, "_logits", lambda image: go.wait(20) and np.zeros(3))
    thread = threading.Thread(target=stuck.infer, args=(IMAGE,))
    thread.start()
    try:
        time.sleep(0.2)
        assert not stuck.healthy
    finally:
        go.set()
        thread.join()
    assert stuck.healthy


def test_a_network_with_another_input_name_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path)
    file = tmp_path / "model.xml"
    file.write_text(file.read_text().replace('names="image"', 'names="pixels"'))
    with pytest.raises(StartError, match="must have one input, image, that takes"):
        network.Network(artifact.load(tmp_path))
