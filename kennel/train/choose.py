"""What a pipeline run is started with: the data set's manifest and the parameters."""

from collections.abc import Mapping, Sequence
from typing import Any

from kennel.aws import plainly
from kennel.errors import KennelError

# The fields of training.hyperparameters.Hyperparameters that pipelines have as parameters (a test compares them): an
# installed `kennel` comes without `training`.
HYPERPARAMETERS = (
    "model",
    "mode",
    "image_size",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "label_smoothing",
    "seed",
    "precision",
    "views",
    "mixup",
    "ema",
    "compile",
    "abstain_coverage",
    "abstain_precision",
    "int8",
    "export_agreement",
    "export_change",
    "runtime",
)


def choose_manifest(s3: Any, bucket: str, asked: str) -> str:
    """The key of a data set's manifest: of `asked` (a name, a key or an s3:// address), or the newest of all.

    Raises KennelError where there is none.
    """
    key = asked.removeprefix(f"s3://{bucket}/")
    found = _manifests(s3, bucket, key if key.endswith(".manifest") else f"datasets/{asked}/" if asked else "datasets/")
    if not found:
        missing = f"There is no data set {asked!r}" if asked else "There is no data set"
        raise KennelError(
            f"{missing} in s3://{bucket}: send one with `kennel upload FOLDER`, which starts the pipeline."
        )
    return max(found)[1]


def _manifests(s3: Any, bucket: str, prefix: str) -> list[tuple[Any, str]]:
    with plainly():
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        listed = [one for page in pages for one in page.get("Contents", [])]
    return [(one["LastModified"], one["Key"]) for one in listed if one["Key"].endswith(".manifest")]


def parameters(hyperparameters: Mapping[str, str], pairs: Sequence[str], **more: object) -> dict[str, str]:
    """Pipeline parameters as StartPipelineExecution takes them, what was not given left out.

    `pairs` are `Name=Value` texts, which win; `more` are parameters under their own names, None for not given.
    """
    found = {pascal(name): value for name, value in hyperparameters.items()}
    found |= {name: str(value) for name, value in more.items() if value is not None}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise KennelError(f"--set wants Name=Value, such as Epochs=3, not {pair!r}.")
        found[name] = value
    return found


def pascal(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
