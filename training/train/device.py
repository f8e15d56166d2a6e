"""What this machine computes with."""

import os

import torch

from training.cpu import multiplies_bfloat16
from training.errors import TrainingError


def prepare_device(local_rank: int) -> torch.device:
    """Return this worker's GPU, or the CPU; the same seed shall give the same model on the same hardware."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.deterministic = True
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_precision(wanted: str, device: torch.device, *, mode: str = "head") -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it (GPUs from Ampere on, CPUs with AMX or AVX-512 BF16), or where
    it is demanded; int8 where that is demanded and `mode` is "head". Raises TrainingError for int8 in another mode."""
    if wanted == "int8":
        if mode != "head":
            raise TrainingError("precision=int8 is for mode=head only, where the backbone does not learn; use auto.")
        return torch.int8
    if wanted == "float32":
        return torch.float32
    able = _gpu_multiplies_bfloat16() if device.type == "cuda" else multiplies_bfloat16()
    return torch.bfloat16 if able or wanted == "bfloat16" else torch.float32


def _gpu_multiplies_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def cores() -> int:
    """Return how many cores this process may keep busy; OMP_NUM_THREADS says it where workers share a host."""
    allowed = len(os.sched_getaffinity(0))
    told = os.environ.get("OMP_NUM_THREADS", "")
    return min(allowed, int(told)) if told.isdecimal() and int(told) else allowed
