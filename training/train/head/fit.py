"""The last layer on features: standardized rows in, a trained linear layer out, with its best epoch and checkpoints."""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training.calibration import calibrated_loss
from training.errors import TrainingError
from training.hyperparameters import Hyperparameters
from training.metrics import format_epoch
from training.train import checkpoint, engine
from training.train.context import TrainingContext
from training.train.data import mix, step_size
from training.train.head.features import Features

_ROWS = 4096  # converted to float64 at a time


@dataclass(frozen=True)
class FeatureSet:
    """Features to train and validate heads on, with mean 0 and standard deviation 1 over the plain training images, so
    that one learning rate suits every backbone."""

    train: Tensor  # float32 [(1 + views) x images, width]
    train_labels: Tensor  # int64 [images]
    valid: Tensor  # float32 [images, width]
    valid_labels: Tensor  # int64 [images]
    classes: int
    mean: Tensor  # float64 [width], before standardization
    std: Tensor  # float64 [width]

    @classmethod
    def standardized(cls, features: Features, context: TrainingContext) -> "FeatureSet":
        """Standardize in place: a second copy may not fit into memory."""
        count, classes = len(context.train_split), len(context.train_split.classes)
        parts = torch.split(features.train[:count], _ROWS)
        mean = torch.stack([part.sum(0, dtype=torch.float64) for part in parts]).sum(0) / count
        variance = torch.stack([(part.double() - mean).square().sum(0) for part in parts]).sum(0) / count
        std = variance.sqrt()
        std = torch.where(std > 1e-6, std, torch.ones_like(std))  # columns that never change
        for rows in (features.train, features.valid):
            rows.sub_(mean.float()).div_(std.float())
        train_labels, valid_labels = context.labels()
        return cls(features.train, train_labels, features.valid, valid_labels, classes, mean, std)

    def unstandardize(self, head: nn.Linear) -> nn.Linear:
        """Return the layer that computes on raw features what `head` computes on standardized ones."""
        raw = nn.Linear(head.in_features, head.out_features)
        weight = head.weight.detach().double() / self.std
        with torch.no_grad():
            raw.weight.copy_(weight)
            raw.bias.copy_(head.bias.detach().double() - weight @ self.mean)
        return raw


@dataclass
class TrainedHead:
    """A head as it was after the epoch of the lowest loss; `logits` float32 [validation images, classes].

    `loss` is the validation loss in nats with the `temperature` that fits best, as the served model has one: a head is
    judged by what it knows, not by how sure it is. `epoch` counts from 1.
    """

    head: nn.Linear
    logits: Tensor
    loss: float
    temperature: float
    epoch: int
    history: list[dict[str, float]]

    @property
    def accuracy(self) -> float:
        return self.history[self.epoch - 1]["valid_accuracy"]


def fit(
    features: FeatureSet,
    settings: Hyperparameters,
    stopped: Callable[[], bool],
    log: Callable[[str], None] = lambda line: None,
    checkpoints: "HeadCheckpoints | None" = None,
) -> TrainedHead | None:
    """Train a head for `settings.epochs` on the plain and `settings.views` augmented views; resume at a checkpoint.

    `log` gets the line of each epoch. Return the head of the best epoch, or None once `stopped()`. Raise TrainingError
    when the loss is not finite.
    """
    images = len(features.train_labels)
    rows = images * (1 + settings.views)
    batch_size = step_size(rows, settings.batch_size, 1)
    steps = rows // batch_size
    head = zero_head(features.train.shape[1], features.classes)
    optimizer = engine.optimizer_for(head, weight_decay=settings.weight_decay)
    history, best = checkpoints.resume(head, optimizer) if checkpoints else ([], None)
    for epoch in range(len(history), settings.epochs):
        started, loss = time.monotonic(), 0.0
        order = torch.randperm(rows, generator=torch.Generator().manual_seed(mix(settings.seed, epoch)))
        head.train()
        for step, chosen in enumerate(torch.split(order[: steps * batch_size], batch_size)):
            x, y = features.train[chosen], features.train_labels[chosen % images]  # [batch, width], [batch]
            lr = engine.learning_rate(epoch * steps + step, settings.epochs * steps, settings.learning_rate)
            try:
                loss += engine.train_step(head, optimizer, x, y, settings, lr=lr)
            except engine.NotFinite as error:
                raise TrainingError(
                    f"Training stopped at epoch {epoch + 1}, batch {step + 1} of {steps}: {error}; "
                    f"try a learning_rate below {settings.learning_rate:g}."
                ) from None
        speed = rows / max(time.monotonic() - started, 1e-9)
        logits = engine.predict(head, [features.valid])
        metrics = {"train_loss": loss / steps, **engine.validation_metrics(logits, features.valid_labels)}
        log(format_epoch(epoch + 1, **metrics, images_per_second=speed))
        history.append({"epoch": epoch + 1, **metrics, "images_per_second": speed})
        calibrated, temperature = calibrated_loss(logits.numpy(), features.valid_labels.numpy())
        if best is None or calibrated < best.loss:
            best = TrainedHead(copy.deepcopy(head), logits, calibrated, temperature, epoch + 1, history)
        stop = stopped()
        if checkpoints and (stop or checkpoints.due):
            checkpoints.save(head, optimizer, best)
        if stop:
            return None
    return best


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on the calling thread alone.

    A step is too small to share: threads that share it spin while they wait for a core that another has taken (measured
    beside other work: 5 ms a step on one thread, 100 ms on two). And so the result does not depend on the cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def zero_head(width: int, classes: int) -> nn.Linear:
    """Return a layer of zeros: its loss has one minimum, which needs no random start."""
    head = nn.Linear(width, classes, device="meta").to_empty(device="cpu")
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


class HeadCheckpoints:
    """The checkpoints of one head: written when it is stopped, and every few minutes of a very long training."""

    def __init__(self, context: TrainingContext, settings: Hyperparameters, features: str) -> None:
        self._folder = settings_folder(context, settings.to_strings(), features)
        self._interval, self._saved = checkpoint.checkpoint_interval(), time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._saved > self._interval

    def resume(
        self, head: nn.Linear, optimizer: torch.optim.Optimizer
    ) -> tuple[list[dict[str, float]], TrainedHead | None]:
        """Load the newest undamaged checkpoint into both; return the history so far and the best head in it."""
        state = checkpoint.load_newest(self._folder)
        if state is None:
            return [], None
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        best_head = zero_head(head.in_features, head.out_features)
        best_head.load_state_dict(state["best_head"])
        best = TrainedHead(best_head, **state["best"])
        print(f"resuming at epoch={len(best.history) + 1}", flush=True)
        return best.history, best

    def save(self, head: nn.Linear, optimizer: torch.optim.Optimizer, best: TrainedHead) -> None:
        state = {
            "head": head.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best_head": best.head.state_dict(),
            "best": {name: value for name, value in vars(best).items() if name != "head"},
        }
        checkpoint.save(self._folder, len(best.history), state)
        self._saved = time.monotonic()


def settings_folder(context: TrainingContext, settings: Mapping[str, str], features: str) -> Path:
    """Return the checkpoint folder of a head that is trained with `settings` on the features of that key."""
    return checkpoint.run_folder(
        context.paths.checkpoints, [{**context.identity(), "settings": dict(settings)}, features]
    )
