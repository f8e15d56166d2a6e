"""Weights to start from where the pretrained ones cannot be had: `python -m benchmarks.lib.weights FOLDER FILE`.

Random ones, conditioned as trained ones are: each block adds little to what it passes on, and the batch normalization's
statistics are measured on images, so that the features neither vanish nor explode. Both recipes get the same file.
"""

import sys
from pathlib import Path

import torch
import torchvision  # type: ignore[import-untyped]
from torchvision.transforms import v2  # type: ignore[import-untyped]

IMAGES = 64
SHARE = 0.2  # of its own that a block adds


def main(folder: Path, file: Path) -> None:
    """Write a torchvision ResNet-50 state_dict to `file`; `folder` holds class folders."""
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    for block in model.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            torch.nn.init.constant_(block.bn3.weight, SHARE)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the batches
    see = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    normalize = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    images = torchvision.datasets.ImageFolder(str(folder), v2.Compose([see, normalize]))
    chosen = range(0, len(images), max(1, len(images) // IMAGES))
    with torch.no_grad():
        for batch in torch.utils.data.DataLoader(torch.utils.data.Subset(images, list(chosen)), 16):
            model(batch[0])
    torch.save(model.state_dict(), file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
