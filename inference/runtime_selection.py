"""Which of the artifact's networks is computed how, and why; decided once, at the start."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from inference.errors import StartError

# Of model.json's exports: which one a runtime computes in a precision.
EXPORTS = {
    "openvino": {"int8": "int8", "bfloat16": "float32", "float32": "float32"},  # best first
    "onnxruntime": {"float32": "onnx"},
    "torch": {"bfloat16": "pt2", "float32": "pt2"},
}
PRECISIONS = ("auto", "float32", "bfloat16", "int8")


@dataclass(frozen=True)
class Choice:
    """`export`: the key in the artifact's files; `threads`: pictures computed at a time, one a core."""

    runtime: str
    precision: str
    export: str
    threads: int
    why: str

    @property
    def workers(self) -> int:
        """Pictures that are worked on at a time: one is decoded while the network is busy with the others."""
        return self.threads + 1


def choose(
    runtime: str, asked: str, threads: int, *, offered: Collection[str], multiplied: Mapping[str, str], cores: int
) -> Choice:
    """`offered`: the artifact's exports; `multiplied`: from precision to what the hardware has for it.

    No `threads` are `cores`. Raises StartError when what was asked for is not to be had.
    """
    exports = EXPORTS[runtime]
    if not set(exports.values()) & set(offered):
        wanted = " or ".join(sorted(set(exports.values())))
        raise StartError(
            f"RUNTIME={runtime} needs the export {wanted}, which this artifact lacks; train with runtime={runtime}."
        )
    reasons = {precision: _against(runtime, precision, offered, multiplied) for precision in PRECISIONS[1:]}
    if asked == "auto":
        precision = next((name for name in exports if not reasons[name]), "")
        if not precision:
            against = "; ".join(str(reasons[name]) for name in exports)
            raise StartError(f"RUNTIME={runtime} can compute none of its precisions: {against}.")
        passed_over = [reasons[name] for name in list(exports)[: list(exports).index(precision)]]
        why = "; ".join([f"{precision}: {multiplied[precision]}", *map(str, passed_over)])
    elif reasons[asked]:
        raise StartError(f"PRECISION={asked} is not to be had: {reasons[asked]}; set PRECISION=auto.")
    else:
        precision, why = asked, f"PRECISION={asked}"
    used, bound = (threads, f"THREADS={threads}") if threads else (cores, f"{cores} usable cores")
    return Choice(runtime, precision, exports[precision], used, f"{why}; {bound}")


def _against(runtime: str, precision: str, offered: Collection[str], multiplied: Mapping[str, str]) -> str | None:
    export = EXPORTS[runtime].get(precision)
    if export is None:
        return f"{runtime} computes no {precision} here"
    if export not in offered:
        return f"the artifact offers no {precision}"
    if precision not in multiplied:
        return f"this hardware does not multiply {precision}"
    return None
