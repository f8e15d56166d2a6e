"""`python3 slim.py [FOLDER]`: remove from an image's installed packages what this server never runs, and say how much.

Half of OpenVINO is for other devices and for models of other frameworks; a third of numpy is its tests and what
compiles against it. By hand and not by rebuilding: the libraries stay those that their makers built.
"""

import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

# Below site-packages. What `import openvino` and `import numpy` themselves need stays.
UNUSED = (
    "openvino/cmake",
    "openvino/frontend/*/",  # readers of other formats than OpenVINO's own; this package itself is imported
    "openvino/include",
    "openvino/libs/cache.json",  # of the GPU
    "openvino/libs/libopenvino_auto*",
    "openvino/libs/libopenvino_c.so*",
    "openvino/libs/libopenvino_*_frontend.so*",
    "openvino/libs/libopenvino_hetero*",
    "openvino/libs/libopenvino_intel_gpu*",
    "openvino/libs/libopenvino_intel_npu*",
    "openvino/libs/libtbbmalloc_proxy*",
    "openvino/tools",
    "openvino/torch",
    "numpy/**/tests",
    "numpy/_core/_*_tests.*.so",
    "numpy/_core/_simd.*.so",
    "numpy/_core/include",
    "numpy/_core/lib",
    "numpy/_pyinstaller",
    "numpy/distutils",
    "numpy/f2py",
    "numpy/testing",
    "numpy/**/*.pyi",
    "numpy/**/*.a",
    "openvino/**/*.pyi",
    "PIL/_avif.*.so",
    "pillow.libs/libavif-*",
)
KEPT = ("openvino/libs/libopenvino_ir_frontend.so*",)


def unused(site: Path) -> Iterator[Path]:
    """Yield the files and folders to remove; none lies in another."""
    kept = {path for pattern in KEPT for path in site.glob(pattern)}
    found = {path for pattern in UNUSED for path in site.glob(pattern)} - kept
    return (path for path in sorted(found) if path.name != "__pycache__" and not found & set(path.parents))


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def main(site: Path) -> None:
    taken = 0
    for path in list(unused(site)):
        taken += size(path)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"slim: {taken / 1e6:.0f} MB taken from {site}, {size(site) / 1e6:.0f} MB left")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sysconfig.get_path("platlib")))
