"""The program that learns: prepare, train and evaluate, the same for every launcher."""

import sys

# `import openvino` would start a thread and a process that report to its makers over the network, and write to the
# home directory, if openvino_telemetry could be imported. Its own stub takes over when that fails.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
