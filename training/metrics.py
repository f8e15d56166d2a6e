"""The log line of an epoch and the regular expressions with which SageMaker reads it back.

Standard library only: the CDK app imports METRIC_DEFINITIONS.
"""

METRICS = ("train_loss", "valid_loss", "valid_accuracy", "images_per_second")

# A number may be plain, in exponent form, or nan; SageMaker takes the first group.
METRIC_DEFINITIONS = [{"Name": name, "Regex": rf"{name}=([0-9.eE+-]+|nan)"} for name in METRICS]


def format_epoch(
    epoch: float, *, train_loss: float, valid_loss: float, valid_accuracy: float, images_per_second: float
) -> str:
    """Return the line that reports one epoch (counted from 1); losses in nats, accuracy from 0 to 1."""
    return (
        f"epoch={epoch:g} train_loss={train_loss:.6f} valid_loss={valid_loss:.6f} "
        f"valid_accuracy={valid_accuracy:.6f} images_per_second={images_per_second:.1f}"
    )
