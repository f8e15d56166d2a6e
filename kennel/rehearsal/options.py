"""What a rehearsal can be told; it checks itself before anything is started."""

from dataclasses import dataclass, fields
from pathlib import Path

from kennel.aws import stack_name
from kennel.errors import KennelError

# The same as training.hyperparameters.MODELS (a test compares them): an installed `kennel` comes without `training`.
MODELS = ("resnet18", "resnet34", "resnet50", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0")

DUPLICATES = ("fail", "remove", "report")

_RANGES = {
    "epochs": (1, 10_000),
    "image_size": (16, 1024),
    "batch_size": (1, 65_536),
    "learning_rate": (1e-9, 10),
    "instances": (1, 8),
    "tune": (0, 500),
    "port": (0, 65_535),
    "seed": (0, 2**31 - 1),
    "threshold": (0, 1),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """One rehearsal. `data` None: the handwritten digits; `image_size` None: chosen by the images' own size."""

    data: Path | None = None
    weights: Path | None = None  # pretrained state_dict; with it only the head learns
    duplicates: str = "fail"  # what Prepare does with an image that is in two splits
    model: str = "resnet18"
    epochs: int = 8
    image_size: int | None = None
    batch_size: int = 64
    learning_rate: float = 0.0029
    instances: int = 1
    tune: int = 0  # trials: of the head within one job, of the whole network a job each; 0 = no tuning
    spot: bool = False
    images: bool = False
    keep: bool = False
    stage: str = "Dev"
    out: Path = Path("rehearsal")
    port: int = 0  # of the embedded AWS; 0 = any free one
    seed: int = 0
    threshold: float | None = None  # of the quality gate, 0 to 1; None: chosen by the data
    photos: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        _check_choice("model", self.model, MODELS)
        _check_choice("duplicates", self.duplicates, DUPLICATES)
        stack_name(self.stage, "")
        for field in fields(self):
            _check_range(field.name, getattr(self, field.name))
        if self.data is not None and not self.data.is_dir():
            raise KennelError(f"--data must be a folder of class folders, but {self.data} is none.")
        if self.weights is not None and not self.weights.is_file():
            raise KennelError(f"--weights must be a torchvision state_dict (.pth), but {self.weights} is no file.")
        for photo in self.photos:
            if not photo.exists():
                raise KennelError(f"--photos names {photo}, which does not exist.")
        if self.out.exists() and not self.out.is_dir():
            raise KennelError(f"--out must be a folder, but {self.out} is a file.")


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise KennelError(f"--{name} must be one of {', '.join(known)}, not {value!r}.")


def _check_range(name: str, value: object) -> None:
    if name not in _RANGES or value is None:
        return
    least, most = _RANGES[name]
    if not isinstance(value, int | float) or not least <= value <= most:  # also refuses nan
        raise KennelError(f"--{name.replace('_', '-')} must lie between {least:g} and {most:g}, not {value}.")
