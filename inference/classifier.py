"""From a picture's bytes to probabilities: what one worker thread does for one request."""

import io
import math

from PIL import Image

from inference import images, transform
from inference.artifact import Artifact
from inference.errors import Refused, StartError
from inference.network import Network


class Classifier:
    def __init__(self, artifact: Artifact, max_pixels: int) -> None:
        """Loads the network; raises StartError when it does not fit the artifact."""
        self.classes, self.threshold = artifact.classes, artifact.threshold
        self._preprocessing = artifact.preprocessing
        self._network = Network(artifact)
        self._max_pixels = max_pixels

    @property
    def healthy(self) -> bool:
        return self._network.healthy

    def classify(self, body: bytes) -> list[float]:
        """One probability per class, in class order; raises Refused for what is no picture to be classified."""
        picture = images.decode(body, self._max_pixels)
        # A picture of one line passes every limit and grows to gigabytes when that line becomes 256 pixels wide.
        if math.prod(transform.resized(*picture.size, self._preprocessing.resize)) > self._max_pixels:
            raise Refused(413, "too_large", "The picture is too long for its width; send a part of it.")
        return [float(p) for p in self._network.infer(transform.to_tensor(picture, self._preprocessing))]

    def warm_up(self) -> None:
        """Answers once, all the way, so that the first caller waits no longer than the next; raises StartError."""
        file = io.BytesIO()
        Image.new("RGB", (32, 32), "gray").save(file, "JPEG")
        try:
            self.classify(file.getvalue())
        except (RuntimeError, Refused) as error:
            raise StartError(f"the model failed on its first picture: {error}.") from error
