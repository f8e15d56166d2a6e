"""A classifier behind FastAPI as most people write it: float32, eager, one process, the model inside the endpoint.

`uvicorn benchmarks.lib.fastapi_eager:app`, with the state_dict's path in WEIGHTS.
"""

import io
import os
from typing import Any

import torch
import torchvision  # type: ignore[import-untyped]
from fastapi import FastAPI, Request  # type: ignore[import-not-found,unused-ignore]
from PIL import Image
from torchvision import transforms

app = FastAPI()
state = torch.load(os.environ["WEIGHTS"], weights_only=True)
model = torchvision.models.resnet50(weights=None, num_classes=len(state["fc.bias"]))
model.load_state_dict(state)
model.eval()
classes = [f"breed-{number:03}" for number in range(len(state["fc.bias"]))]
see = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


@app.post("/predict")  # type: ignore[untyped-decorator,unused-ignore]
async def predict(request: Request) -> dict[str, Any]:
    picture = Image.open(io.BytesIO(await request.body())).convert("RGB")
    with torch.no_grad():
        odds = model(see(picture).unsqueeze(0)).softmax(1)[0]
    return {"probabilities": odds.tolist(), "classes": classes}
