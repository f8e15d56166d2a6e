"""The server that holds a trained classifier and answers for pictures, by SageMaker's hosting contract."""

import sys

# `import openvino` would start a thread and a process that report to its makers over the network, and write to the
# home directory, if openvino_telemetry could be imported. Its own stub takes over when that fails.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
