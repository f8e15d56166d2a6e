"""From a picture's bytes to an answer: decoding, the network on whatever runtime computes it, and its health."""

import io
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference import images
from inference.artifact import Artifact, Known
from inference.errors import Refused, StartError
from inference.runtime_selection import Selection
from inference.telemetry import Timings

_UNHEALTHY_AFTER = 3  # failures in a row
_STUCK_AFTER = 30.0  # seconds for one picture


class Runtime(Protocol):
    def outputs(self, pixels: NDArray[np.uint8]) -> Sequence[NDArray[np.float32]]:
        """Return logits [classes], and the embedding [dimensions] of a network that has one, for [crop, crop, 3].

        Called by `Selection.workers` threads. Raise RuntimeError.
        """


@dataclass(frozen=True)
class Answer:
    """What is answered for one picture."""

    probabilities: list[float]  # in class order
    known: dict[str, float | bool] | None  # score, threshold and is_known; None without a reference


def supported_precisions(runtime: str) -> dict[str, str]:
    """Return precision -> what the hardware has for it in `runtime`; float32 is always there."""
    return _runtime_module(runtime).supported_precisions()  # type: ignore[no-any-return]


def load_runtime(artifact: Artifact, selection: Selection) -> Runtime:
    """Return the loaded network; raise StartError when the files cannot be read or do not fit model.json."""
    module, file = _runtime_module(selection.runtime), artifact.files[selection.export]
    try:
        return module.load(file, artifact, selection)  # type: ignore[no-any-return]
    except StartError:
        raise
    except Exception as error:  # zip, pickle, schema, CUDA: the libraries raise what they like
        reason = " ".join(str(error).split())[:300]
        raise StartError(f"{file} cannot be loaded by {selection.runtime}: {reason}.") from error


def _runtime_module(runtime: str) -> Any:
    # Imported here, so that the library of this runtime is loaded and no other.
    try:
        return import_module(f"inference.on_{runtime}")
    except ImportError as error:
        raise StartError(f"this image has no {runtime} ({error}); build it with RUNTIME={runtime}.") from error


class Network:
    """The loaded network; remembers failures and inferences that do not return."""

    def __init__(self, runtime: Runtime, temperature: float = 1.0, known: Known | None = None) -> None:
        self._runtime, self._temperature, self._known = runtime, temperature, known
        self._lock = threading.Lock()
        self._started: dict[int, float] = {}  # thread -> start of its inference, seconds
        self._failures = 0

    @property
    def healthy(self) -> bool:
        """Return False after repeated failures, and while an inference does not return."""
        with self._lock:
            oldest = min(self._started.values(), default=None)
        stuck = oldest is not None and time.monotonic() - oldest > _STUCK_AFTER
        return self._failures < _UNHEALTHY_AFTER and not stuck

    def infer(self, pixels: NDArray[np.uint8]) -> Answer:
        """Return the answer for [crop, crop, 3]; raise RuntimeError when the network fails."""
        thread, failed = threading.get_ident(), True
        with self._lock:
            self._started[thread] = time.monotonic()
        try:
            outputs = self._runtime.outputs(pixels)
            if not all(np.isfinite(output).all() for output in outputs):
                raise RuntimeError("the network's output holds numbers that are not finite")
            failed = False
        finally:
            with self._lock:
                del self._started[thread]
                self._failures = self._failures + 1 if failed else 0
        logits = np.asarray(outputs[0], np.float64)
        odds = np.exp((logits - logits.max()) / self._temperature)  # in this order no temperature overflows the best
        return Answer((odds / odds.sum()).tolist(), _resemblance(self._known, outputs[1]) if self._known else None)


def _resemblance(known: Known, embedding: NDArray[np.float32]) -> dict[str, float | bool]:
    """Return the score, the mean cosine similarity to the nearest rows of the reference, and what follows from it."""
    length = max(float(np.linalg.norm(embedding)), 1e-12)
    # By this thread alone: a product by BLAS would wake others, which then spin where networks compute.
    similarities = np.einsum("ij,j->i", known.rows, embedding / np.float32(length))  # [images]
    score = float(np.partition(similarities, -known.neighbours)[-known.neighbours :].mean())
    return {"score": score, "threshold": known.threshold, "is_known": score >= known.threshold}


class Classifier:
    """What the routes call: one picture's bytes in, an answer out."""

    def __init__(self, artifact: Artifact, runtime: Runtime, max_pixels: int) -> None:
        self.classes, self.threshold = artifact.classes, artifact.threshold
        self._preprocessing = artifact.preprocessing
        self._network = Network(runtime, artifact.temperature, artifact.known)
        self._max_pixels = max_pixels

    @property
    def healthy(self) -> bool:
        return self._network.healthy

    def classify(self, body: bytes, timings: Timings) -> Answer:
        """Return the answer and note the times; raise Refused for no usable picture."""
        started = time.perf_counter()
        try:
            pixels = self._pixels(body)
        finally:
            decoded = time.perf_counter()
            timings.decode_ms = 1000 * (decoded - started)
        answer = self._network.infer(pixels)
        timings.model_ms = 1000 * (time.perf_counter() - decoded)
        return answer

    def _pixels(self, body: bytes) -> NDArray[np.uint8]:
        try:
            picture = images.decode(body, self._max_pixels)
            # A picture of one line passes every limit and grows to gigabytes when that line becomes 256 pixels wide.
            if math.prod(images.resized(*picture.size, self._preprocessing.resize)) > self._max_pixels:
                raise Refused(413, "too_large", "The picture is too long for its width; send a part of it.")
            return images.to_pixels(picture, self._preprocessing)
        except MemoryError as error:
            message = "The picture needs more memory than there is; send a smaller one."
            raise Refused(413, "too_large", message) from error

    def warm_up(self, threads: int) -> None:
        """Answer once on each of so many threads, so that the first callers wait no longer; raise StartError.

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
