"""Finetune mode: first the head on frozen features, then every layer from there, at a small learning rate."""

from training.calibration import calibrated_loss
from training.train.context import StopFlag, TrainedModel, TrainingContext, choose_precision
from training.train.head.train import train_head
from training.train.whole import train_whole


def finetune(context: TrainingContext, stop: StopFlag) -> TrainedModel | None:
    """Train and return the network; None when `stop` was set on any rank and what is done has been saved.

    It is the head's where the whole network came to know no more: by the validation loss at the best temperature. After
    an interruption the head is trained again, on the features that are there, and the rest goes on from its checkpoint.
    """
    group, labels = context.group, context.labels()[1].numpy()
    head = train_head(context, stop)
    if head is None:
        return None
    context.precision = choose_precision(context.settings.precision, context.device, mode=context.mode)
    whole = train_whole(context, stop, start=group.broadcast(head.model.state_dict() if group.is_main else None))
    if whole is None:
        return None
    if not group.is_main:
        return whole
    before, after = (calibrated_loss(one.logits.float().numpy(), labels)[0] for one in (head, whole))
    context.log(
        f"finetuned loss_before={before:.6f} loss_after={after:.6f} kept={'whole' if after < before else 'head'}"
    )
    kept = whole if after < before else head
    kept.settings, kept.trials = context.settings, head.trials
    return kept
