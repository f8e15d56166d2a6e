"""Whole-network mode: every weight is trained, on images that are decoded and augmented anew in each epoch."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import TrainingError
from training.metrics import format_epoch
from training.split import Split
from training.train import checkpoint, engine
from training.train.context import StopFlag, TrainedModel, TrainingContext
from training.train.data import Images, Item, batches, mix, step_size, steps_per_epoch, train_plan, valid_plan
from training.train.model import State

_MOST_NAMES = 5  # images that an error names


@dataclass
class Progress:
    """How far the run is: `step` steps of `epoch` (both from 0) are done, with this sum of losses over images."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    images: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def train_whole(context: TrainingContext, stop: StopFlag, start: State | None = None) -> TrainedModel | None:
    """Train, or finetune `start`, to the last epoch; return None once `stop` was set on any rank, after a checkpoint.

    A checkpoint is written after each epoch and every `checkpoint_interval()` seconds; a finished run trains nothing.
    """
    settings, group, split, seed = context.settings, context.group, context.train_split, context.settings.seed
    _refuse_single_images(context)
    images, valid_labels = Images(split, context.preprocessing, augment=True), context.labels()[1]
    steps = steps_per_epoch(len(split), settings.batch_size, group.world_size)
    run, interval = Run(context, steps, start), checkpoint.checkpoint_interval()
    progress, logits = run.resume(), None
    while progress.epoch < settings.epochs:
        epoch, images_before = progress.epoch, progress.images
        plan = train_plan(
            len(split), settings.batch_size, seed=seed, epoch=epoch, rank=group.rank, world_size=group.world_size
        )
        started = saved = time.monotonic()
        run.model.train()
        for step, (x, y) in enumerate(batches(images, plan[progress.step :], context.device), progress.step):
            # x: float32 [batch, 3, side, side], y: int64 [batch]; this rank's part of the step
            lr = engine.learning_rate(epoch * steps + step, settings.epochs * steps, run.peak)
            mixup_lambda = engine.draw_mixup_lambda(settings.mixup, mix(seed, epoch, step))
            torch.manual_seed(mix(seed, epoch, step, group.rank))  # dropout
            with _step_errors(context, epoch, step, plan):
                loss = engine.train_step(
                    run.wrapped,
                    run.optimizer,
                    x,
                    y,
                    settings,
                    lr=lr,
                    precision=context.precision,
                    mixup_lambda=mixup_lambda,
                )
            if run.ema:
                run.ema.update_parameters(run.model)
            loss_sum, count, stopped = group.all_reduce(loss * len(y), len(y), stop.is_set)
            progress.step, progress.loss, progress.images = step + 1, progress.loss + loss_sum, progress.images + count
            if stopped:
                run.save_and_stop(progress, f"after epoch={epoch + 1} step={step + 1}")
                return None
            if time.monotonic() - saved > interval:
                run.save(progress)
                saved = time.monotonic()
        speed = (progress.images - images_before) / max(time.monotonic() - started, 1e-9)
        logits = validate(run, stop)  # [validation images, classes]
        if logits is None:
            run.save_and_stop(progress, f"while validating epoch={epoch + 1}")
            return None
        metrics = {
            "train_loss": progress.loss / max(1.0, progress.images),
            **engine.validation_metrics(logits, valid_labels),
            "images_per_second": speed,
        }
        context.log(format_epoch(epoch + 1, **metrics))
        progress = Progress(epoch + 1, history=[*progress.history, {"epoch": epoch + 1, **metrics}])
        run.save(progress)
    if logits is None:  # resumed after the last epoch
        logits = validate(run, stop)
    return run.result(logits, progress)


class Run:
    """The model, its optimizer and the average of its weights, in memory and in checkpoints."""

    def __init__(self, context: TrainingContext, steps: int, start: State | None) -> None:
        """`steps`: in an epoch; `start`: the weights that are finetuned, None for those of the context."""
        self.context, self.steps, settings = context, steps, context.settings
        # Convolutions in bfloat16 are several times faster on a CPU if the channels are last in memory.
        self.model = context.build_network().to(context.device).to(memory_format=torch.channels_last)
        if start is not None:
            self.model.load_state_dict(start)
        # The peak of the learning rate's schedule, at the head: blocks before it have less of it in finetuning.
        self.peak = settings.learning_rate if start is None else settings.finetune_rate
        decay = 1.0 if start is None else settings.layer_decay
        self.optimizer = engine.optimizer_for(self.model, weight_decay=settings.weight_decay, layer_decay=decay)
        self.ema = engine.ema_of(self.model, settings.ema) if settings.ema else None
        self.wrapped = _wrap(self.model, context)  # the same parameters, for all ranks, perhaps compiled
        self._folder = checkpoint.run_folder(context.paths.checkpoints, context.identity())

    @property
    def exported(self) -> nn.Module:
        """The network that is validated and exported: the averaged weights if there are any."""
        return self.ema.module if self.ema else self.model

    def resume(self) -> Progress:
        """Load the newest undamaged checkpoint of this run, if any; rank 0 reads it for all."""
        context = self.context
        state = context.group.broadcast(checkpoint.load_newest(self._folder) if context.group.is_main else None)
        if not state:
            return Progress()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema:
            self.ema.load_state_dict(state["ema"])
        progress = Progress(**state["progress"])
        context.log(f"resuming at epoch={progress.epoch + 1} step={progress.step}")
        return progress

    def save(self, progress: Progress) -> None:
        """Write a checkpoint. Random numbers need none: each step's seed follows from epoch, step and rank."""
        if self.context.group.is_main:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.state_dict() if self.ema else None,
                "progress": vars(progress),
            }
            checkpoint.save(self._folder, progress.epoch * self.steps + progress.step, state)

    def save_and_stop(self, progress: Progress, where: str) -> None:
        """Write the last checkpoint and log where the run stops."""
        self.save(progress)
        self.context.log(f"stopped by SIGTERM {where}; checkpoint written")

    def result(self, logits: Tensor | None, progress: Progress) -> TrainedModel | None:
        """Return the trained network with its logits and history; None if validation was stopped."""
        if logits is None:
            self.save_and_stop(progress, "while validating")
            return None
        model = self.exported.to(memory_format=torch.contiguous_format)
        last = {name: progress.history[-1][name] for name in ("train_loss", "valid_loss", "valid_accuracy")}
        return TrainedModel(model, self.context.settings, logits, last, progress.history)


def validate(run: Run, stop: StopFlag) -> Tensor | None:
    """Return logits, float32 [validation images, classes], the same on each rank; None once any was stopped.

    Raise TrainingError with the images' names when a logit is infinite or NaN.
    """
    context, group, split = run.context, run.context.group, run.context.valid_split
    _broadcast_statistics(context, run.exported)
    plan = valid_plan(len(split), context.settings.batch_size, rank=group.rank, world_size=group.world_size)
    decoded = batches(Images(split, context.preprocessing, augment=False), plan, context.device)
    local = engine.predict(
        run.exported, (x for x, _ in takewhile(lambda _: not stop.is_set, decoded)), context.precision
    )
    if group.all_reduce(stop.is_set)[0]:
        return None
    logits = group.all_gather_rows(local.reshape(-1, context.architecture.classes), len(split))
    wrong = (~logits.isfinite().all(1)).nonzero().flatten().tolist()
    if wrong:
        raise TrainingError(
            f"The network has no finite answer for {_names(context.valid_split, wrong)} of the channel valid; "
            f"try a learning_rate below {context.settings.learning_rate:g}."
        )
    return logits


def _broadcast_statistics(context: TrainingContext, model: nn.Module) -> None:
    """Give all ranks rank 0's statistics of batch normalization, which are exported; each rank has its own."""
    if context.group.world_size > 1:
        local = list(model.buffers())
        for buffer, main in zip(local, context.group.broadcast([buffer.cpu() for buffer in local]), strict=True):
            buffer.copy_(main)


def _wrap(model: nn.Module, context: TrainingContext) -> nn.Module:
    if context.group.world_size > 1:
        model = DistributedDataParallel(model, device_ids=[context.device] if context.device.type == "cuda" else None)
    if context.settings.compile == "no":
        return model
    compiler = os.environ.get("CXX", "g++")  # as torch's inductor looks for it
    if shutil.which(compiler) is None:
        raise TrainingError(f"compile=yes needs a C++ compiler, but {compiler} is not here; install it or set CXX.")
    return torch.compile(model)  # type: ignore[return-value]


@contextmanager
def _step_errors(context: TrainingContext, epoch: int, step: int, plan: list[list[Item]]) -> Iterator[None]:
    """Turn what can go wrong in a step into a TrainingError that names epoch, batch and images."""
    try:
        yield
    except engine.NotFinite as error:
        names = _names(context.train_split, [index for index, _ in plan[step]])
        raise TrainingError(
            f"Training stopped at epoch {epoch + 1}, batch {step + 1} of {len(plan)}: {error}. "
            f"Try a learning_rate below {context.settings.learning_rate:g}; the batch is {names}."
        ) from None
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = " ".join(str(error).partition("\n\n")[0].split())[:300]
        raise TrainingError(f"The network could not be compiled ({reason}); set compile=no.") from error


def _refuse_single_images(context: TrainingContext) -> None:
    """Raise TrainingError for batches of one image per rank, of which batch normalization makes zeros."""
    images, batch, world_size = len(context.train_split), context.settings.batch_size, context.group.world_size
    if step_size(images, batch, world_size) == world_size:
        raise TrainingError(
            f"Whole-network training needs two images a worker and step, but {images} images in batches of {batch} "
            f"leave one for each of the {world_size} workers; raise batch_size, or give more images."
        )


def _names(split: Split, indices: list[int]) -> str:
    """Return the names of the first few images, and how many there are beside them."""
    names = [split.samples[index].name for index in indices]
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + rest
