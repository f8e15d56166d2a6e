"""What one picture costs one core in the server's own modules: `python -m ... PHOTOS CORE SECONDS`. One JSON line.

The environment is the server's. Milliseconds a picture, the mean over whole rounds through all of them.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.lib.photographs import files


def main(photos: Path, core: int, seconds: float) -> None:
    os.sched_setaffinity(0, {core})  # before OpenVINO looks for cores
    from inference import images
    from inference.__main__ import load, settings_from
    from inference.telemetry import Timings

    server = load(settings_from(os.environ))[0]
    bodies = [file.read_bytes() for file in files(photos)]
    for body in bodies[:5]:
        server.classify(body, Timings())
    decoding, resizing = _timed(images, "decode"), _timed(images, "to_pixels")
    rounds, begun = 0, time.perf_counter()
    while not rounds or time.perf_counter() - begun < seconds:
        for body in bodies:
            server.classify(body, Timings())
        rounds += 1
    each = 1000 / (rounds * len(bodies))
    total, decode, resize = (each * taken for taken in (time.perf_counter() - begun, decoding[0], resizing[0]))
    print(json.dumps({"total": total, "decode": decode, "resize": resize, "model": total - decode - resize}))


def _timed(module: Any, name: str) -> list[float]:
    """Replace a function by one that adds up its seconds in the list's one number."""
    spent, function = [0.0], getattr(module, name)

    def timed(*arguments: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            spent[0] += time.perf_counter() - begun

    replacement: Callable[..., Any] = timed
    setattr(module, name, replacement)
    return spent


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
