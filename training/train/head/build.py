"""The backbone made ready for this machine, and int8 held against float32 before it is believed."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import torch
from torch import Tensor, nn

from training.train.data import Images
from training.train.head import precision as arithmetics
from training.train.head.backbone import GPU_BATCH, Backbone, Torch
from training.train.head.compiled import BATCH, Compiled, calibrated, convert
from training.train.job import Job

CALIBRATION, CHECK = 32, 16  # training images that set int8's scales, and others that test them

# Of the features' variance between images: the head learns on int8 features, and float32 is served. Measured with
# CIFAR-10 (2,500 images, ResNet-18 after three epochs, whose int8 noise of 0.13 was enlarged): the head that is served
# loses nothing up to 0.3, half a point of accuracy at 0.5, one at 1.2. With ResNet-50 at 224 the noise is 0.012 with
# weights conditioned as trained ones are, whose blocks add little to what they pass on, and 0.35 with random ones;
# bfloat16's is 0.0003 and 0.013.
NOISE = 0.25


def batch_of(device: torch.device) -> int:
    """Return the batch of the backbone that will be built."""
    return GPU_BATCH if device.type == "cuda" else BATCH


class TooCoarse(Exception):
    """int8 would change the features too much; the text says by how much."""


class Builder:
    """Makes the backbone in one arithmetic after the other; what is exported is exported once."""

    def __init__(self, job: Job, network: nn.Module, threads: ThreadPoolExecutor) -> None:
        self._job, self._network, self._threads = job, network, threads
        self._exported: object = None
        # By content, so that other images in the split seldom mean other scales.
        content = {sample.sha256: index for index, sample in enumerate(job.train_split.samples)}
        chosen = sorted(content)[: CALIBRATION + CHECK]
        count = min(CALIBRATION, max(1, len(chosen) * 2 // 3))
        self._indices = [content[sha256] for sha256 in chosen]
        self._count = count
        self.calibration = hashlib.sha256("".join(chosen[:count]).encode()).hexdigest()

    def describe(self, arithmetic: torch.dtype) -> list[str]:
        """Return what the numbers depend on beside the weights, for the features' key."""
        if self._job.device.type == "cuda":
            return [arithmetics.name_of(arithmetic), f"torch {torch.__version__}"]
        found = [arithmetics.name_of(arithmetic), f"openvino {version('openvino')}"]
        return [*found, f"nncf {version('nncf')}", self.calibration] if arithmetic is torch.int8 else found

    def build(self, arithmetic: torch.dtype) -> Backbone:
        """Return the backbone. Raises TooCoarse for int8 that disagrees with float32."""
        job, begun = self._job, time.monotonic()
        if job.device.type == "cuda":
            found: Backbone = Torch(self._network, job.device, arithmetic)
        elif arithmetic is torch.int8:
            found = self._int8()
        else:
            found = Compiled(self._export(), arithmetic, job.how.crop)
        seconds = time.monotonic() - begun
        job.say(f"backbone arithmetic={arithmetics.name_of(arithmetic)} seconds={seconds:.3f}")
        return found

    def _export(self) -> object:
        self._exported = self._exported or convert(self._network, self._job.how.crop)
        return self._exported

    def _int8(self) -> Backbone:
        images = Images(self._job.train_split, self._job.how, augment=False)
        decoding = [self._threads.submit(images.__getitem__, (index, 0)) for index in self._indices]
        exported = self._export()
        pictures = torch.stack([one.result()[0] for one in decoding])
        coarse = Compiled(calibrated(exported, pictures[: self._count]), torch.int8, self._job.how.crop)
        check = pictures[self._count :] if len(pictures) > self._count else pictures
        exact = Compiled(exported, torch.float32, self._job.how.crop)
        share = noise(_features(exact, check), _features(coarse, check))
        share = self._job.group.broadcast(share)
        if not share <= NOISE:
            raise TooCoarse(f"int8 is too coarse here: {share:.1%} of the variance of its features would be noise")
        return coarse


def noise(exact: Tensor, coarse: Tensor) -> float:
    """Return the squared error of features [images, width] over their squared distance from the mean image's."""
    error = (coarse - exact).square().sum()
    return float(error / (exact - exact.mean(0)).square().sum().clamp(min=1e-12))


def _features(backbone: Backbone, images: Tensor) -> Tensor:
    return torch.cat(list(backbone.run(torch.split(images, backbone.batch))))
