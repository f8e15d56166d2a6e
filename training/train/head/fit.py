"""The head on features: the optimizer steps of `training.train.engine`, with features in the place of images."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.errors import TrainingError
from training.hyperparameters import Hyperparameters
from training.metrics import format_epoch
from training.train import engine
from training.train.data import mix, step_size
from training.train.head.checkpoints import Keeper
from training.train.head.features import Features
from training.train.job import Job

_ROWS = 4096  # at a time, where float64 is wanted


@dataclass(frozen=True)
class Lesson:
    """What heads are trained and measured on: features of mean 0 and deviation 1, as the plain training images have
    them, so that one learning rate suits every backbone."""

    train: Tensor  # float32 [(1 + views) x images, width]
    train_labels: Tensor  # int64 [images]
    valid: Tensor  # float32 [images, width]
    valid_labels: Tensor  # int64 [images]
    classes: int
    mean: Tensor  # float64 [width], of the features before
    deviation: Tensor  # float64 [width]

    @classmethod
    def of(cls, job: Job, features: Features) -> "Lesson":
        """Standardize in place: there is no room for a second copy of what may be most of the memory."""
        labels = [torch.tensor([s.label for s in split.samples]) for split in (job.train_split, job.valid_split)]
        mean, deviation = _moments(features.train[: len(labels[0])])
        for rows in (features.train, features.valid):
            rows.sub_(mean.float()).div_(deviation.float())
        classes = len(job.train_split.classes)
        return cls(features.train, labels[0], features.valid, labels[1], classes, mean, deviation)

    def fold(self, head: nn.Linear) -> nn.Linear:
        """Return the layer that answers on features as they come what `head` answers on standardized ones."""
        folded = nn.Linear(head.in_features, head.out_features)
        weight = head.weight.detach().double() / self.deviation
        with torch.no_grad():
            folded.weight.copy_(weight)
            folded.bias.copy_(head.bias.detach().double() - weight @ self.mean)
        return folded


@dataclass(frozen=True)
class Fitted:
    """A trained head; `logits` float32 [validation images, classes]."""

    head: nn.Linear
    logits: Tensor
    history: list[dict[str, float]]


def fit(
    lesson: Lesson,
    settings: Hyperparameters,
    stopped: Callable[[], bool],
    say: Callable[[str], None],
    keeper: Keeper | None = None,
) -> Fitted | None:
    """Train a new head for `settings.epochs` over the plain and `settings.views` augmented views; `say` takes the line
    of each epoch. It goes on where `keeper` was. None once `stopped()`. Raises TrainingError when the loss is no
    finite number."""
    rows = len(lesson.train_labels) * (1 + settings.views)
    head = _blank(lesson.train.shape[1], lesson.classes)
    optimizer = engine.optimizer_for(head, weight_decay=settings.weight_decay)
    history = keeper.load(head, optimizer) if keeper else []
    for epoch in range(len(history), settings.epochs):
        begun = time.monotonic()
        loss = _epoch(lesson, head, optimizer, settings, epoch)
        speed = rows / max(time.monotonic() - begun, 1e-9)
        metrics = {"train_loss": loss, **_measure(head, lesson), "images_per_second": speed}
        say(format_epoch(epoch + 1, **metrics))
        history.append({"epoch": epoch + 1, **metrics})
        stop = stopped()
        if keeper and (stop or keeper.due):
            keeper.save(head, optimizer, history)
        if stop:
            return None
    return Fitted(head, engine.answer(head, [lesson.valid], torch.float32), history)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on the calling thread alone.

    A step is too small to share: whoever shares it waits, spinning, for a core that another has taken (measured beside
    other work: 5 ms a step on one thread, 100 ms on two). And so the result does not depend on the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _blank(width: int, classes: int) -> nn.Linear:
    """Return a layer of zeros: its loss has one minimum, so there is nothing that chance could help to find."""
    head = nn.Linear(width, classes, device="meta").to_empty(device="cpu")
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _measure(head: nn.Linear, lesson: Lesson) -> dict[str, float]:
    """Return the loss in nats and the accuracy from 0 to 1."""
    logits, labels = engine.answer(head, [lesson.valid], torch.float32), lesson.valid_labels
    return {
        "valid_loss": functional.cross_entropy(logits, labels).item(),
        "valid_accuracy": (logits.argmax(1) == labels).float().mean().item(),
    }


def _epoch(
    lesson: Lesson, head: nn.Linear, optimizer: torch.optim.Optimizer, settings: Hyperparameters, epoch: int
) -> float:
    """Take an epoch's steps in a new order and return the mean loss of its images."""
    images = len(lesson.train_labels)
    rows = images * (1 + settings.views)
    size = step_size(rows, settings.batch_size, 1)
    steps = rows // size
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(mix(settings.seed, epoch)))
    head.train()
    total = 0.0
    for step, chosen in enumerate(torch.split(order[: steps * size], size)):
        rate = engine.learning_rate(epoch * steps + step, settings.epochs * steps, settings.learning_rate)
        smoothing = settings.label_smoothing
        features, labels = lesson.train[chosen], lesson.train_labels[chosen % images]
        try:
            total += engine.train_step(head, optimizer, features, labels, rate=rate, label_smoothing=smoothing)
        except engine.NotFinite as error:
            raise TrainingError(
                f"Training stopped at epoch {epoch + 1}, batch {step + 1} of {steps}: {error}; "
                f"try a learning_rate below {settings.learning_rate:g}."
            ) from None
    return total / steps


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each column, float64; a column that never changes gets the deviation 1."""
    parts = torch.split(rows, _ROWS)
    mean = torch.stack([part.sum(0, dtype=torch.float64) for part in parts]).sum(0) / len(rows)
    square = torch.stack([(part.double() - mean).square().sum(0) for part in parts]).sum(0) / len(rows)
    deviation = square.sqrt()
    return mean, torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
