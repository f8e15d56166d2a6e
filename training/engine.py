"""The learning itself: tensors in, numbers out. No files, no arguments, no prints."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

Parameters = list[dict[str, object]]


class NotFinite(ArithmeticError):
    """The loss became infinite or NaN: no weight was changed by the step."""


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


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Tensor,  # float32 [batch, 3, side, side]
    labels: Tensor,  # int64 [batch]
    *,
    rate: float,
    label_smoothing: float = 0.0,
    precision: torch.dtype = torch.float32,
) -> float:
    """Take one optimizer step at `rate` and return the batch's mean loss in nats; raises NotFinite before it harms."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
        logits = model(images)  # [batch, classes]
    loss = functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
    value = loss.item()
    if not math.isfinite(value):
        raise NotFinite(f"the loss is {value}")
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value


@torch.inference_mode()
def answer(model: nn.Module, batches: Iterable[Tensor], precision: torch.dtype) -> Tensor:
    """Return the logits of all batches of images, float32 [images, classes], on the CPU."""
    model.eval()
    answers = []
    for images in batches:
        with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
            answers.append(model(images).float().cpu())
    return torch.cat(answers) if answers else torch.empty(0, 0)
