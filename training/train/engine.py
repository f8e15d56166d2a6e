"""The learning itself: tensors in, numbers out. No files, no arguments, no prints."""

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

Parameters = list[dict[str, object]]
Tensors = tuple[Tensor, ...] | list[Tensor]


class NotFinite(ArithmeticError):
    """The loss or its gradient became infinite or NaN: no weight was changed by the step."""


def optimizer_for(model: nn.Module, *, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over what learns; biases and normalization (one-dimensional) are not decayed."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: Parameters = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], fused=True)


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Return the rate for `step` of `steps` (from 0): a linear rise over 5 % of them, then half a cosine to zero."""
    rise = max(1, steps // 20)
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of `model` whose `update_parameters` keeps a running mean of weights and statistics.

    The decay grows with the steps, (1 + n) / (10 + n), until it is `decay`: from a fixed one a short run would keep
    its first weights.
    """

    def update(kept: Tensors, now: Tensors, steps: Tensor | int) -> None:
        count = int(steps)
        mean = get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))  # type: ignore[no-untyped-call]
        mean(kept, now, steps)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def mixup_share(alpha: float, seed: int) -> float:
    """Return what each image keeps of itself in a step with mixup, from Beta(alpha, alpha); 1 if `alpha` is 0."""
    return float(np.random.default_rng(seed).beta(alpha, alpha)) if alpha else 1.0


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,  # float32 [batch, 3, side, side]
    labels: Tensor,  # int64 [batch]
    *,
    rate: float,
    label_smoothing: float = 0.0,
    precision: torch.dtype = torch.float32,
    share: float = 1.0,
) -> float:
    """Take one optimizer step at `rate` and return the batch's mean loss in nats; raises NotFinite before it harms.

    With a `share` below 1 each image is blended with the one before it in the batch, as is its target.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    if share < 1:
        images = torch.lerp(images.roll(1, 0), images, share)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
        logits = model(images)  # [batch, classes]
    loss = functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    if share < 1:
        other = functional.cross_entropy(logits.float(), labels.roll(1, 0), label_smoothing=label_smoothing)
        loss = share * loss + (1 - share) * other
    value = loss.item()
    if not math.isfinite(value):
        raise NotFinite(f"the loss is {value}")
    loss.backward()  # type: ignore[no-untyped-call]
    _refuse_infinite_gradients(optimizer)
    optimizer.step()
    return value


def _refuse_infinite_gradients(optimizer: torch.optim.Optimizer) -> None:
    """bfloat16 reaches as far as float32, so nothing is scaled; but a finite loss can have a gradient beyond both."""
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients).item()
    if not math.isfinite(norm):
        raise NotFinite(f"the gradient's length is {norm}")


@torch.inference_mode()
def answer(model: nn.Module, batches: Iterable[Tensor], precision: torch.dtype) -> Tensor:
    """Return the logits of all batches of images, float32 [images, classes], on the CPU."""
    model.eval()
    answers = []
    for images in batches:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
            answers.append(model(images).float().cpu())
    return torch.cat(answers) if answers else torch.empty(0, 0)
