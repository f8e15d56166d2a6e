"""From a picture's bytes to probabilities: what one worker thread does for one picture."""

import io
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference import images, transform
from inference.artifact import Artifact
from inference.errors import Refused, StartError
from inference.network import Network, Runtime
from inference.timings import Timings


class Answers(Protocol):
    """What the routes need of a classifier."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def threshold(self) -> float | None: ...

    @property
    def healthy(self) -> bool: ...

    def classify(self, body: bytes, timings: Timings) -> list[float]: ...


class Classifier:
    def __init__(self, artifact: Artifact, runtime: Runtime, max_pixels: int) -> None:
        self.classes, self.threshold = artifact.classes, artifact.threshold
        self._preprocessing = artifact.preprocessing
        self._network = Network(runtime, artifact.temperature)
        self._max_pixels = max_pixels

    @property
    def healthy(self) -> bool:
        return self._network.healthy

    def classify(self, body: bytes, timings: Timings) -> list[float]:
        """One probability per class, in class order; notes its time. Raises Refused for what cannot be classified."""
        begun = time.perf_counter()
        try:
            pixels = self._pixels(body)
        finally:
            decoded = time.perf_counter()
            timings.decode_ms = 1000 * (decoded - begun)
        probabilities = self._network.infer(pixels).tolist()
        timings.model_ms = 1000 * (time.perf_counter() - decoded)
        return probabilities  # type: ignore[no-any-return]

    def _pixels(self, body: bytes) -> NDArray[np.uint8]:
        try:
            picture = images.decode(body, self._max_pixels)
            # A picture of one line passes every limit and grows to gigabytes when that line becomes 256 pixels wide.
            if math.prod(transform.resized(*picture.size, self._preprocessing.resize)) > self._max_pixels:
                raise Refused(413, "too_large", "The picture is too long for its width; send a part of it.")
            return transform.to_pixels(picture, self._preprocessing)
        except MemoryError as error:
            message = "The picture needs more memory than there is; send a smaller one."
            raise Refused(413, "too_large", message) from error

    def warm_up(self, threads: int) -> None:
        """Answers once on each of so many threads, so that the first callers wait no longer; raises StartError.

        Once alone before: OpenVINO's binding initializes itself on first use, and two threads that do so at once
        wait for each other for ever, one with Python's lock and one with C++'s.
        """
        file = io.BytesIO()
        Image.new("RGB", (32, 32), "gray").save(file, "JPEG")
        together = threading.Barrier(threads)  # otherwise one thread could answer for all

        def answer(_: int) -> None:
            together.wait()
            self.classify(file.getvalue(), Timings())

        try:
            self.classify(file.getvalue(), Timings())
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(answer, range(threads)))
        except (RuntimeError, Refused) as error:
            raise StartError(f"the model failed on its first picture: {error}.") from error
