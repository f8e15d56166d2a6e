"""A LitServe server: `python -m benchmarks.lib.litserve_app PORT`, with the weights file in WEIGHTS.

The image classifier of its documentation (https://lightning.ai/docs/litserve, "Speed up serving by 200x") with the
batching that it advises; it answers with all probabilities in place of the best class.
"""

import base64
import io
import sys
from typing import Any

import litserve  # type: ignore[import-not-found,unused-ignore]
import torch
from PIL import Image

from benchmarks.lib.servers_compared import CLASSES, network


class ImageClassifier(litserve.LitAPI):  # type: ignore[misc,unused-ignore]
    def setup(self, device: str) -> None:
        model, self.transform = network()
        self.model = model.to(device)

    def decode_request(self, request: dict[str, str]) -> torch.Tensor:
        picture = Image.open(io.BytesIO(base64.b64decode(request["image_data"]))).convert("RGB")
        return self.transform(picture)  # type: ignore[no-any-return]

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(inputs).to(self.device)

    def predict(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self.model(inputs).softmax(1)  # type: ignore[no-any-return]

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        return {"probabilities": output.tolist(), "classes": CLASSES}


if __name__ == "__main__":
    api = ImageClassifier(max_batch_size=8, batch_timeout=0.01)
    litserve.LitServer(api, accelerator="cpu").run(port=int(sys.argv[1]), generate_client_file=False)
