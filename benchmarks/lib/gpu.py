"""How busy the GPU was, as nvidia-smi counts it."""

import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SAMPLE_MILLISECONDS = 200


@contextmanager
def busy() -> Iterator[Callable[[], float | None]]:
    """Sample the first GPU while the block runs; the function then gives the busy share (0 to 1) of the samples with
    any work in them, since imports and exports are not asked about; None where there is no GPU."""
    program = shutil.which("nvidia-smi")
    share: list[float | None] = [None]
    if program is None:
        yield lambda: share[0]
        return
    query = ["--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    sampler = subprocess.Popen(
        [program, *query, f"--loop-ms={_SAMPLE_MILLISECONDS}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield lambda: share[0]
    finally:
        sampler.terminate()
        samples = [float(line) for line in sampler.communicate()[0].split() if line.isdecimal()]
        working = [sample for sample in samples if sample > 0]
        share[0] = statistics.fmean(working) / 100 if working else None
