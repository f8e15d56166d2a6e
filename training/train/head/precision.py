"""In which arithmetic the frozen backbone runs: the fastest that this machine multiplies and the features bear."""

import torch

from training.cpu import cpu_flags
from training.hyperparameters import Hyperparameters
from training.train.device import choose_precision

# Calibration takes what int8 saves on about 500 images: 4.7 s against 9 ms an image of 224 pixels with ResNet-50
# (bfloat16 53 images/s, int8 101, two cores of Zen 4). More cores shorten both.
INT8_PAYS = 512 * 224 * 224  # pixels


def choose(settings: Hyperparameters, device: torch.device, images: int) -> torch.dtype:
    """Return float32, bfloat16 or int8 for so many images; the same on each worker and after each restart."""
    if settings.precision == "int8" and device.type == "cpu":
        return torch.int8
    if settings.precision == "auto" and device.type == "cpu" and _int8_pays(images * settings.image_size**2):
        return torch.int8
    return without_int8(settings, device)


def without_int8(settings: Hyperparameters, device: torch.device) -> torch.dtype:
    """Return what is chosen where int8 is not to be had."""
    return choose_precision("auto" if settings.precision == "int8" else settings.precision, device)


def name_of(arithmetic: torch.dtype) -> str:
    return str(arithmetic).removeprefix("torch.")


def _int8_pays(pixels: int) -> bool:
    flags = cpu_flags()
    return pixels >= INT8_PAYS and "amx_bf16" not in flags and bool({"avx512_vnni", "avx_vnni"} & flags)
