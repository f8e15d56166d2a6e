"""Head mode: the frozen backbone sees each image once; the last layer is trained on its features."""

import time
from functools import partial

import torch

from training.metrics import format_epoch
from training.train import engine
from training.train.context import StopFlag, TrainedModel, TrainingContext
from training.train.embedding import fit_features
from training.train.head.features import Features, extract_features
from training.train.head.fit import FeatureSet, HeadCheckpoints, fit, one_thread
from training.train.head.search import Found, Search
from training.train.model import remove_head


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
        return TrainedModel(network, context.settings, torch.empty(0, 0), {}, []) if _wait(context, stop) else None
    fitted = fit_features(context, features.train, features.valid)  # before they are standardized in place
    trained = _train_on(features, context, stop)
    if trained is None:
        context.log("stopped by SIGTERM while the head was trained; its progress is written")
        return None
    context.group.all_reduce(0, 1)  # done: the others need not wait
    network.cpu().to(memory_format=torch.contiguous_format)
    network.set_submodule(head_name, trained.model)
    trained.model, trained.known = network, fitted
    return trained


def _wait(context: TrainingContext, stop: StopFlag) -> bool:
    """Wait for rank 0 and return whether it finished; each answer tells it whether this rank was stopped."""
    while True:
        stopped, done = context.group.all_reduce(stop.is_set, 0)
        if done or stopped:
            return bool(done)


def _train_on(features: Features, context: TrainingContext, stop: StopFlag) -> TrainedModel | None:
    """Search for settings and average the best heads, or train with the given ones; the model is the head alone."""
    feature_set, started = FeatureSet.standardized(features, context), time.monotonic()

    def stopped() -> bool:
        return context.group.all_reduce(stop.is_set, 0)[0] > 0

    def log(line: str) -> None:
        if context.mode == "head":  # otherwise the epochs are still to come
            context.log(line)

    if context.settings.trials == 1:
        checkpoints = HeadCheckpoints(context, context.settings, features.key)
        with one_thread():
            trained = fit(feature_set, context.settings, stopped, log, checkpoints)
        found = trained and Found([trained], context.settings, [])
    else:
        found = Search(context, partial(fit, feature_set), features.key).run(stopped)
        for row in found.heads[0].history if found else ():
            log(format_epoch(**row))
    if not found:
        return None
    head, best = found.average(), found.heads[0]
    logits = engine.predict(head, [feature_set.valid])
    metrics = {
        "train_loss": best.history[best.epoch - 1]["train_loss"],
        **engine.validation_metrics(logits, feature_set.valid_labels),
    }
    context.log(
        f"head of={len(found.heads)} best_epoch={best.epoch} valid_loss={metrics['valid_loss']:.6f} "
        f"valid_accuracy={metrics['valid_accuracy']:.6f} seconds={time.monotonic() - started:.3f}"
    )
    raw = feature_set.unstandardize(head)
    return TrainedModel(raw, found.settings, logits, metrics, best.history, found.trials)
