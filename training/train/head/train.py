"""Head mode: the frozen backbone sees each image once; the last layer is trained on its features."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import TrainingError
from training.hyperparameters import Hyperparameters
from training.metrics import format_epoch
from training.train import checkpoint, engine
from training.train.context import StopFlag, TrainedModel, TrainingContext
from training.train.data import mix, step_size
from training.train.head.features import Features, extract_features
from training.train.head.search import search, settings_folder
from training.train.model import remove_head

_ROWS = 4096  # converted to float64 at a time


def train_head(context: TrainingContext, stop: StopFlag) -> TrainedModel | None:
    """Train and return the network; None when `stop` was set on any rank and what is done has been saved.

    Rank 0 alone trains the head. The others wait for it, and return a network without one.
    """
    network = context.build_network().eval()
    head_name, width = remove_head(network)
    features = extract_features(context, network, width, stop)
    if features is None:
        context.log("stopped by SIGTERM; the features that were computed are written")
        return None
    if not context.group.is_main:
        return TrainedModel(network, context.settings, torch.empty(0, 0), []) if _wait(context, stop) else None
    trained = _train_on(features, context, stop)
    if trained is None:
        context.log("stopped by SIGTERM while the head was trained; its progress is written")
        return None
    context.group.all_reduce(0, 1)  # done: the others need not wait
    network.cpu().to(memory_format=torch.contiguous_format)
    network.set_submodule(head_name, trained.model)
    trained.model = network
    return trained


def _wait(context: TrainingContext, stop: StopFlag) -> bool:
    """Wait for rank 0 and return whether it finished; each answer tells it whether this rank was stopped."""
    while True:
        stopped, done = context.group.all_reduce(stop.is_set, 0)
        if done or stopped:
            return bool(done)


def _train_on(features: Features, context: TrainingContext, stop: StopFlag) -> TrainedModel | None:
    """Search for settings if that was chosen, and train with the best; the returned model is the head alone."""
    feature_set, settings = FeatureSet.standardized(features, context), context.settings
    trials: list[dict[str, Any]] = []

    def stopped() -> bool:
        return context.group.all_reduce(stop.is_set, 0)[0] > 0

    def score(tried: Hyperparameters, halted: Callable[[], bool]) -> tuple[float, float] | None:
        trained = fit(feature_set, tried, halted)
        if trained is None:
            return None
        return trained.history[-1]["valid_accuracy"], trained.history[-1]["valid_loss"]

    if settings.trials:
        found = search(context, score, features.key, stopped)
        if found is None:
            return None
        settings, trials = found
    started = time.monotonic()
    checkpoints = HeadCheckpoints(context, settings, features.key)
    with one_thread():
        trained = fit(feature_set, settings, stopped, context.log, checkpoints)
    if trained is None:
        return None
    context.log(f"head epochs={settings.epochs} seconds={time.monotonic() - started:.3f}")
    return TrainedModel(feature_set.unstandardize(trained.head), settings, trained.logits, trained.history, trials)


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


@dataclass(frozen=True)
class TrainedHead:
    """A trained head; `logits` float32 [validation images, classes]."""

    head: nn.Linear
    logits: Tensor
    history: list[dict[str, float]]


def fit(
    features: FeatureSet,
    settings: Hyperparameters,
    stopped: Callable[[], bool],
    log: Callable[[str], None] = lambda line: None,
    checkpoints: "HeadCheckpoints | None" = None,
) -> TrainedHead | None:
    """Train a head for `settings.epochs` on the plain and `settings.views` augmented views; resume at a checkpoint.

    `log` gets the line of each epoch. Return None once `stopped()`. Raise TrainingError when the loss is not finite.
    """
    images = len(features.train_labels)
    rows = images * (1 + settings.views)
    batch_size = step_size(rows, settings.batch_size, 1)
    steps = rows // batch_size
    head = _zero_head(features.train.shape[1], features.classes)
    optimizer = engine.optimizer_for(head, weight_decay=settings.weight_decay)
    history = checkpoints.resume(head, optimizer) if checkpoints else []
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
        valid = engine.validation_metrics(engine.predict(head, [features.valid]), features.valid_labels)
        metrics = {"train_loss": loss / steps, **valid, "images_per_second": speed}
        log(format_epoch(epoch + 1, **metrics))
        history.append({"epoch": epoch + 1, **metrics})
        stop = stopped()
        if checkpoints and (stop or checkpoints.due):
            checkpoints.save(head, optimizer, history)
        if stop:
            return None
    return TrainedHead(head, engine.predict(head, [features.valid]), history)


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


def _zero_head(width: int, classes: int) -> nn.Linear:
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

    def resume(self, head: nn.Linear, optimizer: torch.optim.Optimizer) -> list[dict[str, float]]:
        """Load the newest undamaged checkpoint into both and return the history so far."""
        state = checkpoint.load_newest(self._folder)
        if state is None:
            return []
        head.load_state_dict(state["head"])
        optimizer.load_state_dict(state["optimizer"])
        history: list[dict[str, float]] = state["history"]
        print(f"resuming at epoch={len(history) + 1}", flush=True)
        return history

    def save(self, head: nn.Linear, optimizer: torch.optim.Optimizer, history: list[dict[str, float]]) -> None:
        state = {"head": head.state_dict(), "optimizer": optimizer.state_dict(), "history": history}
        checkpoint.save(self._folder, len(history), state)
        self._saved = time.monotonic()
