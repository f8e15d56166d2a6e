"""The frozen network without its head, prepared for this machine: batches of images in, features out.

On GPUs torch computes it, on CPUs OpenVINO, in float32, bfloat16 or calibrated int8.
"""

import hashlib
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import openvino  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from training.distributed.cluster import cores, prefers_int8
from training.errors import TrainingError
from training.hyperparameters import SUITED_TO_INT8, Hyperparameters
from training.train.context import TrainingContext, choose_precision, precision_name
from training.train.data import Images
from training.train.export import export_program, quantize, to_openvino

GPU_BATCH, CPU_BATCH = 128, 8
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.int8: "f32"}  # int8: of what stays in floating point

# Calibration takes as long as int8 saves on about 500 images: 4.7 s against 9 ms an image of 224 pixels with ResNet-50
# (bfloat16 53 images/s, int8 101, two cores of Zen 4). More cores shorten both.
MIN_INT8_PIXELS = 512 * 224 * 224

CALIBRATION, CHECK = 32, 16  # training images that set int8's scales, and others that test them

# Of the features' variance between images: the head learns on int8 features, and float32 is served. Measured with
# CIFAR-10 (2,500 images, ResNet-18 after three epochs, whose int8 noise of 0.13 was enlarged): the head that is served
# loses nothing up to 0.3, half a point of accuracy at 0.5, one at 1.2. With ResNet-50 at 224 the noise is 0.012 with
# weights conditioned as trained ones are, whose blocks add little to what they pass on, and 0.35 with random ones;
# bfloat16's is 0.0003 and 0.013.
MAX_NOISE = 0.25


class Int8TooCoarse(Exception):
    """int8 would change the features too much; the text says by how much."""


def choose_backbone_precision(settings: Hyperparameters, device: torch.device, images: int) -> torch.dtype:
    """Return float32, bfloat16 or int8 for so many images; the same on each rank and after each restart."""
    if device.type == "cpu":
        large = images * settings.image_size**2 >= MIN_INT8_PIXELS
        pays = large and settings.model in SUITED_TO_INT8 and prefers_int8()
        if settings.precision == "int8" or (settings.precision == "auto" and pays):
            return torch.int8
    return precision_without_int8(settings, device)


def precision_without_int8(settings: Hyperparameters, device: torch.device) -> torch.dtype:
    """Return the precision to use where int8 is not supported or too coarse."""
    return choose_precision("auto" if settings.precision == "int8" else settings.precision, device)


class BackboneFactory:
    """Builds the backbone in one precision after the other; the network is exported once for all of them."""

    def __init__(self, context: TrainingContext, network: nn.Module, threads: ThreadPoolExecutor) -> None:
        self._context, self._network, self._threads = context, network, threads
        self._exported: Any = None
        self._weights = _weights_sha256(network)
        self.batch = GPU_BATCH if context.device.type == "cuda" else CPU_BATCH
        # Chosen by content, so that other images in the split seldom mean other scales.
        content = {sample.sha256: index for index, sample in enumerate(context.train_split.samples)}
        chosen = sorted(content)[: CALIBRATION + CHECK]
        self._indices = [content[sha256] for sha256 in chosen]
        self._calibration = min(CALIBRATION, max(1, len(chosen) * 2 // 3))
        self._scales = hashlib.sha256("".join(chosen[: self._calibration]).encode()).hexdigest()

    def key(self, precision: torch.dtype) -> dict[str, Any]:
        """Return all that the features depend on, beside the images."""
        context = self._context
        on_gpu = context.device.type == "cuda"
        libraries = [f"torch {torch.__version__}"] if on_gpu else [f"openvino {version('openvino')}"]
        if precision is torch.int8:
            libraries += [f"nncf {version('nncf')}", self._scales]
        return {
            "backbone": self._weights,
            "architecture": [context.architecture.name, context.architecture.stem],
            "device": context.device.type,
            "precision": [precision_name(precision), *libraries],
        }

    def build(self, precision: torch.dtype) -> "Backbone":
        """Return the backbone; raise Int8TooCoarse where int8's features differ too much from float32's."""
        context, started = self._context, time.monotonic()
        backbone: Backbone
        if context.device.type == "cuda":
            backbone = TorchBackbone(self._network, context.device, precision)
        elif precision is torch.int8:
            backbone = self._build_int8()
        else:
            backbone = OpenVinoBackbone(self._export(), precision, context.preprocessing.crop)
        seconds = time.monotonic() - started
        context.log(f"backbone precision={precision_name(precision)} seconds={seconds:.3f}")
        return backbone

    def _export(self) -> Any:
        self._exported = self._exported or convert(self._network, self._context.preprocessing.crop)
        return self._exported

    def _build_int8(self) -> "Backbone":
        context, side, count = self._context, self._context.preprocessing.crop, self._calibration
        images = Images(context.train_split, context.preprocessing, augment=False)
        decoding = [self._threads.submit(images.__getitem__, (index, 0)) for index in self._indices]
        exported = self._export()
        pixels = torch.stack([future.result()[0] for future in decoding])
        coarse = OpenVinoBackbone(quantize(exported, pixels[:count]), torch.int8, side)
        exact = OpenVinoBackbone(exported, torch.float32, side)
        check = torch.split(pixels[count:] if len(pixels) > count else pixels, CPU_BATCH)
        noise = feature_noise(torch.cat(list(exact.run(check))), torch.cat(list(coarse.run(check))))
        noise = context.group.broadcast(noise)
        if not noise <= MAX_NOISE:
            raise Int8TooCoarse(f"int8 is too coarse here: {noise:.1%} of the variance of its features would be noise")
        return coarse


def convert(network: nn.Module, side: int) -> Any:
    """Return the openvino.Model of a network that takes float32 [N, 3, side, side]."""
    return to_openvino(export_program(network, side))


def feature_noise(exact: Tensor, coarse: Tensor) -> float:
    """Return the squared error of features [images, width] over their squared distance from the mean image's."""
    error = (coarse - exact).square().sum()
    return float(error / (exact - exact.mean(0)).square().sum().clamp(min=1e-12))


def _weights_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of all weights and statistics with their names and shapes.

    Raise TrainingError for one that is infinite or NaN: later layers might turn it into finite features.
    """
    total = hashlib.sha256()
    for name, value in network.state_dict().items():
        if not value.isfinite().all():
            raise TrainingError(f"The weights' {name} holds infinite or undefined numbers; upload sound ones.")
        total.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.contiguous().view(-1).view(torch.uint8).numpy())
    return total.hexdigest()


class TorchBackbone:
    """The backbone on a GPU."""

    def __init__(self, network: nn.Module, device: torch.device, precision: torch.dtype) -> None:
        self._device, self._precision = device, precision
        self._network = network.to(device).to(memory_format=torch.channels_last).eval()

    def run(self, batches: Iterable[Tensor]) -> Generator[Tensor]:
        """Yield the features of each batch, one batch late, so that the GPU works while results are copied."""
        waiting: deque[Tensor] = deque()
        for images in batches:
            waiting.append(self._compute(images))
            if len(waiting) > 1:
                yield waiting.popleft().cpu()
        while waiting:
            yield waiting.popleft().cpu()

    @torch.inference_mode()
    def _compute(self, images: Tensor) -> Tensor:
        images = images.to(self._device, non_blocking=True, memory_format=torch.channels_last)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._precision is torch.bfloat16):
            features: Tensor = self._network(images)
        return features.float()


class OpenVinoBackbone:
    """The backbone on a CPU: one stream of one thread per core.

    Threads of one inference would wait for each other whenever decoding takes their core. This way an image's features
    do not depend on the number of cores or workers; nor on the batch, which is always filled up to the same size.
    """

    def __init__(self, network: Any, precision: torch.dtype, side: int) -> None:
        self._side, self._streams = side, cores()
        network = network.clone()
        network.reshape([CPU_BATCH, 3, side, side])
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "NUM_STREAMS": self._streams,
            "INFERENCE_NUM_THREADS": self._streams,
            "ENABLE_CPU_PINNING": False,  # another worker may have been pinned to the same cores
        }
        self._compiled = openvino.Core().compile_model(network, "CPU", options)

    def run(self, batches: Iterable[Tensor]) -> Generator[Tensor]:
        """Yield the features of each batch in order; two batches per stream are under way."""
        idle = [self._compiled.create_infer_request() for _ in range(2 * self._streams)]
        waiting: deque[tuple[Any, int]] = deque()
        try:
            for images in batches:
                if not idle:
                    yield _result(*waiting[0])
                    idle.append(waiting.popleft()[0])
                request = idle.pop()
                filling = torch.zeros(CPU_BATCH - len(images), 3, self._side, self._side)
                request.start_async([(torch.cat([images, filling]) if len(filling) else images).numpy()])
                waiting.append((request, len(images)))
            while waiting:
                yield _result(*waiting[0])
                waiting.popleft()
        finally:
            for request, _ in waiting:
                request.wait()


# Their `run` yields the features, float32 [n, width], of each batch of images, float32 [n, 3, side, side], in order.
# Batches have at most `BackboneFactory.batch` images and are taken before the features of earlier ones are yielded.
Backbone = TorchBackbone | OpenVinoBackbone


def _result(request: Any, count: int) -> Tensor:
    request.wait()
    return torch.from_numpy(request.get_output_tensor().data[:count].copy())  # [count, width]
