"""The forms in which one exported program is written, each with the function that answers from the written file."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino  # type: ignore[import-untyped]
import torch
from torch.export import ExportedProgram

from training.train.export.agreement import Answer


def openvino_of(program: ExportedProgram) -> Any:
    """Return the openvino.Model, whose input is `image` and whose output is `logits`."""
    converted = openvino.convert_model(program)
    converted.inputs[0].set_names({"image"})
    converted.outputs[0].set_names({"logits"})
    return converted


def write_openvino(converted: Any, file: Path) -> Answer:
    """Write `file` and the .bin beside it, with float32 kept as it is."""
    # By themselves the names count what this process has made before: the same network shall give the same bytes.
    converted.set_friendly_name("network")
    for number, operation in enumerate(converted.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    openvino.save_model(converted, file, compress_to_fp16=False)
    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: np.array(compiled(images)[0])  # a copy: the next answer takes its place


def write_onnx(program: ExportedProgram, file: Path) -> Answer:
    import onnxruntime  # type: ignore[import-untyped]  # for those who ask for it

    torch.onnx.export(
        program, f=file, input_names=["image"], output_names=["logits"], dynamo=True, external_data=False, verbose=False
    )
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"image": images})[0]


def write_pt2(program: ExportedProgram, file: Path) -> Answer:
    torch.export.save(program, file)
    module = torch.export.load(file).module()

    def answer(images: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return answer
