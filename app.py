"""Kennel's CDK app: both stages, synthesized from this repository alone, without account, credentials or Docker."""

import json
import os
from pathlib import Path

import stacks  # first: it points jsii at the Node that PyPI brings

# isort: split
import aws_cdk as cdk
from cdk_nag import AwsSolutionsChecks

from stacks.config import DEV, PROD
from stacks.stage import KennelStage

__all__ = ["build", "stacks"]


def build(outdir: str | None = None) -> cdk.App:
    """Return the app with both stages; `outdir` None: where the CDK CLI wants it, else a temporary folder."""
    # The CLI hands cdk.json's context over; a bare `python app.py` must see the same feature flags.
    settings = json.loads(Path(__file__).with_name("cdk.json").read_text())
    app = cdk.App(outdir=outdir, context=settings["context"], analytics_reporting=False, tree_metadata=False)
    KennelStage(app, "Dev", settings=DEV)
    KennelStage(app, "Prod", settings=PROD)
    if os.environ.get("CDK_VALIDATION") != "false":  # the switch of CDK's own validation turns cdk-nag off too
        cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    _let_everybody_read(Path(app.outdir))
    return app


def _let_everybody_read(outdir: Path) -> None:
    """Give the staged assets the modes of a usual checkout: the CLI packs them, and Lambda runs as another user.

    A umask of 027 or 077 leaves files that only their owner can read. An asset's name says nothing of its modes.
    """
    for asset in outdir.glob("asset.*"):
        for path in (asset, *asset.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


if __name__ == "__main__":
    build(os.environ.get("CDK_OUTDIR", "cdk.out")).synth()
