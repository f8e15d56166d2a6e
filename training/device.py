"""What this machine computes with."""

from pathlib import Path

import torch


def prepare_device(local_rank: int) -> torch.device:
    """Return this worker's GPU, or the CPU; the same seed shall give the same model on the same hardware."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.deterministic = True
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies it (GPUs from Ampere on, CPUs with AMX) or where it is demanded."""
    if wanted == "float32":
        return torch.float32
    able = _gpu_multiplies_bfloat16() if device.type == "cuda" else _cpu_has_amx()
    return torch.bfloat16 if able or wanted == "bfloat16" else torch.float32


def _gpu_multiplies_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_has_amx() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
