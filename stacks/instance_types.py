"""What the name of a SageMaker instance type says about its disks, processor and fitting model runtime."""

import re

SAGEMAKER_TYPE = r"ml\.[a-z][a-z0-9-]*\.[a-z0-9]+"
EC2_TYPE = r"[a-z][a-z0-9-]*\.[a-z0-9]+"

_NVME = re.compile(r"ml\.(p3dn|p4|p5|p6|g\d|trn\d|inf2|i\d|[cmr]\d+[agin]*d)")
_GRAVITON = re.compile(r"ml\.[cmr]\d+g[a-z]*\.")  # c7g, m8g, r7gd ...
_GPU = re.compile(r"ml\.(g[4-9]|p[45]|p6-)")  # x86 with a GPU that CUDA 13 knows: not p2, p3 (older), p6e (Arm)
_CPU = re.compile(r"ml\.[cmrt]\d")
_BFLOAT16 = re.compile(r"ml\.([cmr][7-9]i|g[5-9]|p[45]|p6-)")  # Sapphire Rapids or Ampere, or later


def has_nvme_disks(instance_type: str) -> bool:
    """Return whether the volume is on NVMe disks, which the hardware encrypts and which take no customer key."""
    return _NVME.match(instance_type) is not None


def is_graviton(instance_type: str) -> bool:
    """Return whether the processor is Arm's: images for it are linux/arm64."""
    return _GRAVITON.match(instance_type) is not None


def is_gpu(instance_type: str) -> bool:
    return _GPU.match(instance_type) is not None


def supports_bfloat16(instance_type: str) -> bool:
    """Return whether the processor (AMX-BF16, AVX512-BF16) or GPU has bfloat16; without, it is four times slower."""
    return _BFLOAT16.match(instance_type) is not None


def runtime_for(instance_type: str) -> str | None:
    """Return the model runtime for the processor; None where none runs (Inferentia, Trainium, old GPUs ...)."""
    if is_gpu(instance_type):
        return "torch"
    if is_graviton(instance_type):
        return "onnxruntime"
    return "openvino" if _CPU.match(instance_type) else None
