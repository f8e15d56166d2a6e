"""What the server computes with, and in which precision, follows from the artifact and the processor."""

import os
from pathlib import Path

import pytest

from inference import machine
from inference.errors import StartError
from inference.runtime_selection import Choice, choose

BOTH = ("float32", "int8")
PLAIN = {"float32": "any processor"}
BF16 = PLAIN | {"bfloat16": "amx_bf16"}
ALL = BF16 | {"int8": "avx512_vnni"}


def chosen(asked: str = "auto", runtime: str = "openvino", threads: int = 0, **facts: object) -> Choice:
    known = {"offered": BOTH, "multiplied": ALL, "cores": 4, **facts}
    return choose(runtime, asked, threads, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offered", "multiplied", "precision", "export"),
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
    offered: tuple[str, ...], multiplied: dict[str, str], precision: str, export: str
) -> None:
    found = chosen(offered=offered, multiplied=multiplied)
    assert (found.precision, found.export) == (precision, export)


def test_the_reason_names_the_instructions_and_what_was_passed_over() -> None:
    assert chosen().why == "int8: avx512_vnni; 4 usable cores"
    why = chosen(offered=("float32",), multiplied=PLAIN, threads=3).why
    assert why == (
        "float32: any processor; the artifact offers no int8; this hardware does not multiply bfloat16; THREADS=3"
    )


@pytest.mark.parametrize("asked", ["float32", "bfloat16", "int8"])
def test_what_is_asked_for_is_taken(asked: str) -> None:
    found = chosen(asked)
    assert (found.precision, found.why) == (asked, f"PRECISION={asked}; 4 usable cores")


@pytest.mark.parametrize(
    ("asked", "facts", "sentence"),
    [
        ("int8", {"offered": ("float32",)}, "PRECISION=int8 is not to be had: the artifact offers no int8;"),
        ("int8", {"multiplied": BF16}, "this hardware does not multiply int8; set PRECISION=auto."),
        ("bfloat16", {"multiplied": PLAIN}, "this hardware does not multiply bfloat16"),
        ("int8", {"runtime": "onnxruntime", "offered": ("onnx",)}, "onnxruntime computes no int8 here"),
        ("auto", {"runtime": "onnxruntime"}, "RUNTIME=onnxruntime needs the export onnx, which this artifact lacks"),
        ("auto", {"runtime": "torch"}, "train with runtime=torch."),
        ("auto", {"offered": ("onnx",)}, "RUNTIME=openvino needs the export float32 or int8"),
        ("auto", {"offered": ("int8",), "multiplied": PLAIN}, "none of its precisions"),
    ],
)
def test_what_is_not_to_be_had_is_said(asked: str, facts: dict[str, object], sentence: str) -> None:
    with pytest.raises(StartError) as caught:
        chosen(asked, **facts)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


@pytest.mark.parametrize(("runtime", "export"), [("onnxruntime", "onnx"), ("torch", "pt2")])
def test_the_other_runtimes_take_their_own_files(runtime: str, export: str) -> None:
    found = chosen(runtime=runtime, offered=("float32", export), multiplied=PLAIN)
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
    assert machine.multiplies(file) == PLAIN | found
    assert machine.multiplies(tmp_path / "none") == PLAIN


def test_cores_are_those_of_the_process_and_of_its_container(tmp_path: Path) -> None:
    quota, bound = tmp_path / "cpu.max", sorted(os.sched_getaffinity(0))
    assert machine.cores(quota) == len(bound)
    for text, cores in {"max 100000": len(bound), "50000 100000": 1, "99900000 100000": len(bound)}.items():
        quota.write_text(text)
        assert machine.cores(quota) == cores
    quota.write_text("100001 100000")
    assert machine.cores(quota) == min(2, len(bound))
    os.sched_setaffinity(0, bound[:1])
    try:
        assert machine.cores(tmp_path / "none") == 1
    finally:
        os.sched_setaffinity(0, bound)
