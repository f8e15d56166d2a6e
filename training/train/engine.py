"""The optimizer step and what belongs to it: tensors in, numbers out. No files, no arguments, no prints."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.hyperparameters import Hyperparameters

Tensors = tuple[Tensor, ...] | list[Tensor]


class NotFinite(ArithmeticError):
    """The loss or its gradient became infinite or NaN: no weight was changed by the step."""


def optimizer_for(model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters, without decay for biases and normalization (one-dimensional).

    With a `layer_decay` below 1 each block, from the last one back, learns at so much of the next one's rate.
    """
    blocks: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            blocks.setdefault(block_of(name) if layer_decay < 1 else "", []).append(parameter)
    groups: list[dict[str, object]] = []
    for depth, parameters in enumerate(reversed(blocks.values())):
        for decay, chosen in (
            (weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),
        ):
            groups.append({"params": chosen, "weight_decay": decay, "share": layer_decay**depth})
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


def block_of(name: str) -> str:
    """Return the block of a parameter: `layer1.0` of `layer1.0.conv1.weight`, `conv1` of `conv1.weight`."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return f"{first}.{second}" if second.isdigit() else first


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate for `step` of `steps` (from 0): a linear warm-up over 5 % of them, then half a cosine to zero."""
    warmup = max(1, steps // 20)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def ema_of(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of `model` whose `update_parameters` takes an exponential moving average of weights and statistics.

    The decay grows with the steps, (1 + n) / (10 + n), up to `decay`: with a fixed one a short run would end near its
    first weights.
    """

    def update(averaged: Tensors, current: Tensors, steps: Tensor | int) -> None:
        count = int(steps)
        average = get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))  # type: ignore[no-untyped-call]
        average(averaged, current, steps)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def draw_mixup_lambda(alpha: float, seed: int) -> float:
    """Return the weight of each image itself in a step with mixup, from Beta(alpha, alpha); 1 if `alpha` is 0."""
    return float(np.random.default_rng(seed).beta(alpha, alpha)) if alpha else 1.0


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,  # float32 [batch, 3, side, side], or features [batch, width] for a head
    labels: Tensor,  # int64 [batch]
    settings: Hyperparameters,
    *,
    lr: float,
    precision: torch.dtype = torch.float32,
    mixup_lambda: float = 1.0,
) -> float:
    """Take one optimizer step as `settings` says and return the batch's mean loss in nats.

    With a `mixup_lambda` below 1 each image is blended with the one before it in the batch, as is its target. Raise
    NotFinite before a weight is changed.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["share"]
    optimizer.zero_grad(set_to_none=True)
    if mixup_lambda < 1:
        images = torch.lerp(images.roll(1, 0), images, mixup_lambda)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
        logits = model(images)  # [batch, classes]
    loss = functional.cross_entropy(logits.float(), labels, label_smoothing=settings.label_smoothing)
    if mixup_lambda < 1:
        others = labels.roll(1, 0)
        other = functional.cross_entropy(logits.float(), others, label_smoothing=settings.label_smoothing)
        loss = mixup_lambda * loss + (1 - mixup_lambda) * other
    value = loss.item()
    if not math.isfinite(value):
        raise NotFinite(f"the loss is {value}")
    loss.backward()  # type: ignore[no-untyped-call]
    # bfloat16 has float32's range, so no loss scaling is needed; but a finite loss can have an infinite gradient.
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients).item()
    if not math.isfinite(norm):
        raise NotFinite(f"the norm of the gradient is {norm}")
    optimizer.step()
    return value


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Tensor], precision: torch.dtype = torch.float32) -> Tensor:
    """Return the logits of all batches of images, float32 [images, classes], on the CPU."""
    model.eval()
    logits = []
    for images in batches:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
            logits.append(model(images).float().cpu())
    return torch.cat(logits) if logits else torch.empty(0, 0)


def validation_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return valid_loss in nats and valid_accuracy from 0 to 1."""
    return {
        "valid_loss": functional.cross_entropy(logits, labels).item(),
        "valid_accuracy": (logits.argmax(1) == labels).float().mean().item(),
    }
