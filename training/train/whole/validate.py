"""What the network that would be kept now makes of the validation split."""

from itertools import takewhile

import torch
from torch import Tensor
from torch.nn import functional

from training.errors import TrainingError
from training.train.data import Images, Share, batches, valid_plan
from training.train.job import Flag, Job
from training.train.whole.learner import Learner

_NAMED = 5  # images that a message names


def validate(job: Job, learner: Learner, stop: Flag) -> Tensor | None:
    """Return logits, float32 [validation images, classes], the same on each worker; None once any was told to stop.

    Raises TrainingError with the images' names when an answer is infinite or NaN.
    """
    split = job.valid_split
    plan = valid_plan(len(split), job.settings.batch_size, Share(job.group.rank, job.group.world_size))
    pending = batches(Images(split, job.how, augment=False), plan, job.device)
    logits = learner.answer(images for images, _ in takewhile(lambda _: not stop.is_set, pending))
    if job.group.all_reduce(stop.is_set)[0]:
        return None
    logits = job.group.all_gather_rows(logits, len(split))
    wrong = (~logits.isfinite().all(1)).nonzero().flatten().tolist()
    if wrong:
        names = named([split.samples[index].name for index in wrong])
        raise TrainingError(
            f"The network has no finite answer for {names} of the channel valid; "
            f"try a learning_rate below {job.settings.learning_rate:g}."
        )
    return logits


def measures(logits: Tensor, job: Job) -> dict[str, float]:
    """Return valid_loss in nats and valid_accuracy from 0 to 1."""
    labels = torch.tensor([sample.label for sample in job.valid_split.samples])
    return {
        "valid_loss": functional.cross_entropy(logits, labels).item(),
        "valid_accuracy": (logits.argmax(1) == labels).float().mean().item(),
    }


def named(names: list[str]) -> str:
    """Return the first few of `names`, and how many there are beside them."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + rest
