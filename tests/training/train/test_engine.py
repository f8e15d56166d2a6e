"""The optimizer step, the schedule and the average of weights, exactly."""

import math
from typing import Any

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from training.hyperparameters import MODELS, Hyperparameters  # noqa: E402
from training.train import engine  # noqa: E402
from training.train.model import Architecture, build_network, remove_head  # noqa: E402

RATE, DECAY = 0.01, 0.1
SETTINGS = Hyperparameters()


def _linear() -> Any:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.1, -0.2, 0.3], [0.4, 0.5, -0.6]]))
        model[1].bias.copy_(torch.tensor([0.05, -0.05]))
    return model


def _adamw(w: Any, gradients: list[Any], decay: float) -> Any:
    """AdamW as its paper has it, with torch's default coefficients."""
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for number, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = (m / (1 - 0.9**number)) / ((v / (1 - 0.999**number)).sqrt() + 1e-8)
        w = w - RATE * decay * w - RATE * step
    return w


def _by_hand(model: Any, x: Any, targets: Any) -> tuple[float, Any, Any]:
    """Loss of the batch's mean, and its gradients for weight and bias, where `targets` are probabilities."""
    logits = x @ model[1].weight.detach().T + model[1].bias.detach()
    log = logits - logits.exp().sum(1, keepdim=True).log()
    error = (log.exp() - targets) / len(x)
    return -(targets * log).sum().item() / len(x), error.T @ x, error.sum(0)


# The settings, mixup's share, and what each image's target is made of: (share of class 0, of class 1), by hand.
TARGETS: dict[str, tuple[dict[str, Any], float, list[list[float]]]] = {
    "plain": ({"label_smoothing": 0.0}, 1.0, [[1, 0], [0, 1], [0, 1]]),
    "smoothed": ({"label_smoothing": 0.2}, 1.0, [[0.9, 0.1], [0.1, 0.9], [0.1, 0.9]]),
    "mixed": (
        {"label_smoothing": 0.0},
        0.7,
        [[0.7, 0.3], [0.3, 0.7], [0, 1]],
    ),  # with the one before: the last, the first, the second
    "both": ({"label_smoothing": 0.2}, 0.7, [[0.66, 0.34], [0.34, 0.66], [0.1, 0.9]]),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_two_steps_follow_the_gradients_taken_by_hand(kind: str) -> None:
    settings, share, targets = TARGETS[kind]
    model = _linear()
    optimizer = engine.optimizer_for(model, weight_decay=DECAY)
    x = torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 2.0], [-0.3, 0.4, 0.2]], dtype=torch.float64)
    seen = share * x + (1 - share) * x[[2, 0, 1]]
    weight, bias, gradients = model[1].weight.detach().clone(), model[1].bias.detach().clone(), []
    for _ in range(2):
        wanted, *gradient = _by_hand(model, seen, torch.tensor(targets, dtype=torch.float64))
        gradients.append(gradient)
        images, labels = x.reshape(3, 3, 1, 1), torch.tensor([0, 1, 1])
        loss = engine.train_step(
            model, optimizer, images, labels, Hyperparameters(**settings), lr=RATE, mixup_lambda=share
        )
        assert loss == pytest.approx(wanted, rel=1e-6)
    ours = model[1].weight.detach(), model[1].bias.detach()
    torch.testing.assert_close(ours[0], _adamw(weight, [g for g, _ in gradients], DECAY), rtol=1e-5, atol=0)
    torch.testing.assert_close(ours[1], _adamw(bias, [g for _, g in gradients], 0.0), rtol=1e-5, atol=0)


def test_only_matrices_are_decayed() -> None:
    model = build_network(Architecture("resnet18", "small", 3))
    decayed, free = engine.optimizer_for(model, weight_decay=DECAY).param_groups
    assert (decayed["weight_decay"], free["weight_decay"]) == (DECAY, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kinds = [{names[id(parameter)] for parameter in group["params"]} for group in (decayed, free)]
    assert kinds[0] | kinds[1] == set(names.values())
    assert {"conv1.weight", "fc.weight"} < kinds[0]
    assert {"bn1.weight", "bn1.bias", "fc.bias"} < kinds[1]
    assert all(name.endswith("weight") and "bn" not in name for name in kinds[0])


def test_the_average_follows_the_weights_with_a_decay_that_grows_to_the_given_one() -> None:
    model: Any = torch.nn.BatchNorm1d(1)
    average: Any = engine.ema_of(model, 0.5)
    wanted = 0.0
    for step, value in enumerate([1.0, 3.0, -2.0, 8.0, 4.0, 7.0, 1.0, 5.0, 6.0, 2.0]):
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_mean.fill_(10 * value)
        average.update_parameters(model)
        decay = [0, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5][step]
        wanted = decay * wanted + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(wanted, rel=1e-5)
        assert average.module.running_mean.item() == pytest.approx(10 * wanted, rel=1e-5)
    assert model.weight.item() == 2.0


def test_mixup_draws_from_beta_and_from_the_seed_alone() -> None:
    assert engine.draw_mixup_lambda(0.0, 3) == 1.0
    shares = [engine.draw_mixup_lambda(0.4, seed) for seed in range(3000)]
    assert shares[:5] == [engine.draw_mixup_lambda(0.4, seed) for seed in range(5)]
    mean = sum(shares) / len(shares)
    assert mean == pytest.approx(0.5, abs=0.03)
    # Beta(a, a) has the variance 1 / (4 (2 a + 1)).
    assert sum((share - mean) ** 2 for share in shares) / len(shares) == pytest.approx(1 / 7.2, rel=0.05)


def test_a_loss_that_is_not_finite_changes_no_weight() -> None:
    model = _linear()
    before = model[1].weight.detach().clone()
    optimizer = engine.optimizer_for(model, weight_decay=DECAY)
    images = torch.full((1, 3, 1, 1), math.nan, dtype=torch.float64)
    with pytest.raises(engine.NotFinite, match="nan"):
        engine.train_step(model, optimizer, images, torch.tensor([0]), SETTINGS, lr=RATE)
    assert torch.equal(model[1].weight, before)


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1e-30], [0.0]]))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = engine.optimizer_for(model, weight_decay=DECAY)
    with pytest.raises(engine.NotFinite, match="the norm of the gradient is inf"):
        engine.train_step(model, optimizer, torch.full((2, 1, 1, 1), 1e30), torch.tensor([0, 0]), SETTINGS, lr=RATE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    rates = [engine.learning_rate(step, 100, 2.0) for step in range(100)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert engine.learning_rate(0, 1, 2.0) == 2.0


def test_answers_come_for_every_image_in_order() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 1, 1, dtype=torch.float64)
    model = _linear()
    logits = engine.predict(model, [images[:3], images[3:]])
    assert logits.dtype == torch.float32
    assert torch.allclose(logits.double(), model(images), atol=1e-6)


def test_whole_mode_trains_every_parameter_and_the_statistics() -> None:
    torch.manual_seed(0)
    model = build_network(Architecture("resnet18", "small", 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    optimizer = engine.optimizer_for(model, weight_decay=DECAY)
    engine.train_step(model, optimizer, torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]), SETTINGS, lr=RATE)
    assert [name for name, value in model.state_dict().items() if torch.equal(value, before[name])] == []


@pytest.mark.parametrize("name", MODELS)
def test_every_model_ends_with_a_linear_layer_of_one_output_per_class(name: str) -> None:
    with torch.device("meta"):
        network = build_network(Architecture(name, "small", 5))
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
        _, width = remove_head(network)
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, width)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_the_small_stem_keeps_four_times_the_pixels(name: str) -> None:
    shapes = {}
    for stem in ("small", "standard"):
        model = build_network(Architecture(name, stem, 5)).eval()
        first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
        shapes[stem] = first(torch.zeros(1, 3, 32, 32)).shape[-1]
        assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert shapes == {"small": 32, "standard": 16}
