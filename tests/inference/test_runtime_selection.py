"""What the server computes with, and in which precision, follows from the artifact and the processor."""

import os
from pathlib import Path

import pytest

from inference import runtime_selection
from inference.errors import StartError
from inference.runtime_selection import Selection, select

BOTH = ("float32", "int8")
PLAIN = {"float32": "any processor"}
BF16 = PLAIN | {"bfloat16": "amx_bf16"}
ALL = BF16 | {"int8": "avx512_vnni"}


def chosen(asked: str = "auto", runtime: str = "openvino", threads: int = 0, **facts: object) -> Selection:
    known = {"exports": BOTH, "supported": ALL, "cores": 4, **facts}
    return select(runtime, asked, threads, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exports", "supported", "precision", "export"),
    [
        (BOTH, ALL, "int8", "int8"),
        (BOTH, BF16, "bfloat16", "float32"),
        (BOTH, PLAIN, "float32", "float32"),
        (("float32",), ALL, "bfloat16", "float32"),
        (BOTH, PLAIN | {"int8": "avx_vnni"}, "int8", "int8"),
        (("int8",), ALL, "int8", "int8"),
    ],
)
def test_auto_takes_the_fastest_that_is_offered_and_multiplied(
    exports: tuple[str, ...], supported: dict[str, str], precision: str, export: str
) -> None:
    found = chosen(exports=exports, supported=supported)
    assert (found.precision, found.export) == (precision, export)


def test_the_reason_names_the_instructions_and_what_was_passed_over() -> None:
    assert chosen().reason == "int8: avx512_vnni; 4 usable cores"
    why = chosen(exports=("float32",), supported=PLAIN, threads=3).reason
    assert why == (
        "float32: any processor; the artifact has no int8 export; this processor does not support bfloat16; THREADS=3"
    )


@pytest.mark.parametrize("asked", ["float32", "bfloat16", "int8"])
def test_what_is_asked_for_is_taken(asked: str) -> None:
    found = chosen(asked)
    assert (found.precision, found.reason) == (asked, f"PRECISION={asked}; 4 usable cores")


@pytest.mark.parametrize(
    ("asked", "facts", "sentence"),
    [
        ("int8", {"exports": ("float32",)}, "PRECISION=int8 is unavailable: the artifact has no int8 export;"),
        ("int8", {"supported": BF16}, "this processor does not support int8; set PRECISION=auto."),
        ("bfloat16", {"supported": PLAIN}, "this processor does not support bfloat16"),
        ("int8", {"runtime": "onnxruntime", "exports": ("onnx",)}, "onnxruntime does not support int8"),
        ("auto", {"runtime": "onnxruntime"}, "RUNTIME=onnxruntime needs the export onnx, which this artifact lacks"),
        ("auto", {"runtime": "torch"}, "train with runtime=torch."),
        ("auto", {"exports": ("onnx",)}, "RUNTIME=openvino needs the export float32 or int8"),
        ("auto", {"exports": ("int8",), "supported": PLAIN}, "none of its precisions"),
    ],
)
def test_what_is_not_to_be_had_is_said(asked: str, facts: dict[str, object], sentence: str) -> None:
    with pytest.raises(StartError) as caught:
        chosen(asked, **facts)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("runtime", "export"), [("onnxruntime", "onnx"), ("torch", "pt2")])
def test_the_other_runtimes_take_their_own_files(runtime: str, export: str) -> None:
    found = chosen(runtime=runtime, exports=("float32", export), supported=PLAIN)
    assert (found.precision, found.export, found.threads) == ("float32", export, 4)


def test_threads_that_are_set_count() -> None:
    assert [chosen(threads=number).threads for number in (0, 1, 9)] == [4, 1, 9]


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("fpu avx512_vnni avx512_bf16", {"int8": "avx512_vnni", "bfloat16": "avx512_bf16"}),
        ("amx_bf16 amx_int8 avx512_vnni", {"int8": "amx_int8", "bfloat16": "amx_bf16"}),
        ("avx_vnni", {"int8": "avx_vnni"}),
        ("avx2 xavx_vnni", {}),
    ],
)
def test_the_processor_says_what_it_multiplies(tmp_path: Path, flags: str, found: dict[str, str]) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"vendor_id\t: x\nvmx flags\t: amx_int8\nflags\t\t: {flags}\n\nflags : amx_bf16\n")
    assert runtime_selection.supported_precisions(file) == PLAIN | found
    assert runtime_selection.supported_precisions(tmp_path / "none") == PLAIN


def test_cores_are_those_of_the_process_and_of_its_container(tmp_path: Path) -> None:
    quota, bound = tmp_path / "cpu.max", sorted(os.sched_getaffinity(0))
    assert runtime_selection.cores(quota) == len(bound)
    for text, cores in {"max 100000": len(bound), "50000 100000": 1, "99900000 100000": len(bound)}.items():
        quota.write_text(text)
        assert runtime_selection.cores(quota) == cores
    quota.write_text("100001 100000")
    assert runtime_selection.cores(quota) == min(2, len(bound))
    os.sched_setaffinity(0, bound[:1])
    try:
        assert runtime_selection.cores(tmp_path / "none") == 1
    finally:
        os.sched_setaffinity(0, bound)
