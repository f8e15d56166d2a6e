"""The embedding: what the last layer of a network sees, reduced to a few dimensions, beside the logits."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from training import known
from training.split import Split
from training.train import engine
from training.train.context import TrainingContext
from training.train.data import Images, batches, sample_by_class
from training.train.model import head_name, remove_head

_BATCH = 64  # images


class WithEmbedding(nn.Module):
    """A copy of a network that returns logits [N, classes] and embedding [N, dimensions], from one pass."""

    def __init__(self, network: nn.Module, fitted: known.Fitted) -> None:
        super().__init__()
        self.body = copy.deepcopy(network)
        self.head = self.body.get_submodule(head_name(self.body))
        remove_head(self.body)
        self.reduce = nn.Linear(fitted.axes.shape[0], fitted.axes.shape[1], bias=False)
        with torch.no_grad():
            self.reduce.weight.copy_(torch.from_numpy(fitted.axes).T)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(images)
        return self.head(features), self.reduce(features)


def fit_features(context: TrainingContext, train: Tensor, valid: Tensor) -> known.Fitted:
    """Return the reference for the features of all images, float32 [images, width] each, in the splits' order."""
    return _fit(context, lambda split, chosen: (train if split is context.train_split else valid)[chosen])


def fit_network(context: TrainingContext, network: nn.Module) -> known.Fitted:
    """Return the reference for a trained network, by one pass over the images that it takes."""
    head, seen = network.get_submodule(head_name(network)), list[Tensor]()

    def features(split: Split, chosen: list[int]) -> Tensor:
        seen.clear()
        plan = [[(index, 0) for index in chosen[start : start + _BATCH]] for start in range(0, len(chosen), _BATCH)]
        images = batches(Images(split, context.preprocessing, augment=False), plan, context.device)
        engine.predict(network, (pixels for pixels, _ in images), context.precision)
        return torch.cat(seen)

    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
    try:
        return _fit(context, features)
    finally:
        hook.remove()


def _fit(context: TrainingContext, features: Callable[[Split, list[int]], Tensor]) -> known.Fitted:
    """Return the reference, `features` being those of some images of a split."""
    parts = []
    for split in (context.train_split, context.valid_split):
        chosen = sample_by_class(split, known.ROWS, context.settings.seed)
        labels = torch.tensor([split.samples[index].label for index in chosen])
        parts += [features(split, chosen).numpy(), labels.numpy()]
    fitted = known.fit(*parts, coverage=context.settings.known_coverage)
    context.log(
        f"known images={fitted.record['images']} threshold={fitted.record['threshold']} {fitted.record['note']}"
    )
    return fitted
