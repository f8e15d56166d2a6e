"""What this machine's processor multiplies; without torch, which the evaluation does not load."""

from pathlib import Path


def cpu_flags() -> frozenset[str]:
    """Return the instruction sets of this machine's first core as Linux names them; none where it does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def multiplies_bfloat16() -> bool:
    """Elsewhere bfloat16 is imitated, four times slower than float32."""
    return bool({"amx_bf16", "avx512_bf16"} & cpu_flags())
