"""The backbone on CPUs, by OpenVINO: exported once, in float32, bfloat16 or calibrated int8."""

import contextlib
import io
import logging
import os
from collections import deque
from collections.abc import Generator, Iterable
from typing import Any

import openvino  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from training.train.device import cores

BATCH = 8
_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.int8: "f32"}  # int8: of what stays in floating point


def program_of(network: nn.Module, side: int) -> ExportedProgram:
    """Return torch's graph of a network that takes float32 [N, 3, side, side]."""
    # torch.export takes a size of one for a constant, so the example has two images. The older tracer takes as long
    # (3.5 s for ResNet-50) and is deprecated.
    example = torch.zeros(2, 3, side, side)
    return torch.export.export(network.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def convert(backbone: nn.Module, side: int) -> Any:
    """Return the openvino.Model of a network that takes float32 [N, 3, side, side]."""
    return openvino.convert_model(program_of(backbone, side))


def calibrated(model: Any, images: Tensor) -> Any:
    """Return `model` with int8 multiplications whose scales are taken from `images`, float32 [N, 3, side, side]."""
    os.environ.setdefault("NNCF_CI", "1")  # reports its use to nobody
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # looks for CUDA when nncf loads it
    import nncf  # type: ignore[import-untyped]  # half a second, for those who need it

    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(model, nncf.Dataset(list(images[:, None].numpy())), subset_size=len(images))


class Compiled:
    """A converted backbone, compiled: one stream of one thread a core.

    Threads of one inference would wait for each other whenever decoding takes their core. And so an image's features
    do not depend on how many cores or workers there are; the batch, always filled up to the same size, sees to it that
    they do not depend on the batch either.
    """

    def __init__(self, model: Any, arithmetic: torch.dtype, side: int) -> None:
        self.batch, self._side, self._streams = BATCH, side, cores()
        model = model.clone()
        model.reshape([BATCH, 3, side, side])
        options = {
            "INFERENCE_PRECISION_HINT": _HINTS[arithmetic],
            "NUM_STREAMS": self._streams,
            "INFERENCE_NUM_THREADS": self._streams,
            "ENABLE_CPU_PINNING": False,  # another worker may have been pinned to the same cores
        }
        self._compiled = openvino.Core().compile_model(model, "CPU", options)

    def run(self, batches: Iterable[Tensor]) -> Generator[Tensor]:
        idle = [self._compiled.create_infer_request() for _ in range(2 * self._streams)]
        waiting: deque[tuple[Any, int]] = deque()
        try:
            for images in batches:
                if not idle:
                    yield _result(*waiting[0])
                    idle.append(waiting.popleft()[0])
                request = idle.pop()
                request.start_async([self._filled(images).numpy()])
                waiting.append((request, len(images)))
            while waiting:
                yield _result(*waiting[0])
                waiting.popleft()
        finally:
            for request, _ in waiting:
                request.wait()

    def _filled(self, images: Tensor) -> Tensor:
        if len(images) == BATCH:
            return images
        return torch.cat([images, torch.zeros(BATCH - len(images), 3, self._side, self._side)])


def _result(request: Any, count: int) -> Tensor:
    request.wait()
    return torch.from_numpy(request.get_output_tensor().data[:count].copy())  # [count, width]
