"""Large data sets, full disks, and folders that cannot be read or written, in a process of their own."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.training.prepare.datasets import Add, Refused, tar
from training.paths import Paths

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "training", "prepare"]


def _run(command: list[str], opt_ml: Paths) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OPT_ML": str(opt_ml.root)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def _message(done: subprocess.CompletedProcess[str], opt_ml: Paths) -> str:
    """The one sentence with which it failed, on standard error and in the job's message."""
    assert done.returncode == 1
    assert (opt_ml.output / "message").read_text("utf-8") == done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture
def mounted() -> Callable[[str], list[str]]:
    """Returns the command behind a mount that only it sees."""
    unshare = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode != 0:
        pytest.skip("this machine refuses private mounts")
    return lambda mount: [*unshare, "sh", "-c", f'{mount} && exec "$@"', "sh", *COMMAND]


def test_a_full_disk_is_said_in_a_sentence(
    two_classes: None, opt_ml: Paths, mounted: Callable[[str], list[str]]
) -> None:
    data = opt_ml.processing_output("data")
    data.mkdir(parents=True)
    message = _message(_run(mounted(f"mount -t tmpfs -o size=16k none {data}"), opt_ml), opt_ml)
    assert message.startswith("No space is left for ")
    assert "give the job a larger volume" in message


def test_a_disk_without_any_room_for_the_report_is_said_in_a_sentence(
    two_classes: None, opt_ml: Paths, mounted: Callable[[str], list[str]]
) -> None:
    folder = opt_ml.processing_output("report")
    folder.mkdir(parents=True)
    message = _message(
        _run(mounted(f"mount -t tmpfs -o size=4k,nr_inodes=2 none {folder} && : > {folder}/x"), opt_ml), opt_ml
    )
    assert "No space is left for " in message


def test_a_file_that_may_not_grow_is_said_in_a_sentence(two_classes: None, opt_ml: Paths) -> None:
    bound = ["sh", "-c", 'ulimit -f 8 && exec "$@"', "sh"]  # blocks of 512 bytes
    assert "grew beyond what a file may be here; raise the limit" in _message(_run([*bound, *COMMAND], opt_ml), opt_ml)


def test_an_output_that_cannot_be_written_is_said_before_anything_is_read(
    add: Add, opt_ml: Paths, mounted: Callable[[str], list[str]]
) -> None:
    add("images-00000.tar", b"no tar, which would be an error of its own")
    output = opt_ml.processing_output("data")
    output.mkdir(parents=True)
    message = _message(_run(mounted(f"mount -t tmpfs -o ro none {output}"), opt_ml), opt_ml)
    assert message == f"The folder {output} cannot be written; mount it for writing.\n"


def test_an_output_that_is_no_folder_is_said(two_classes: None, opt_ml: Paths, refused: Refused) -> None:
    opt_ml.processing_output("data").parent.mkdir(parents=True)
    opt_ml.processing_output("data").touch()
    assert "cannot be made: File exists" in refused()


def test_a_class_folder_that_cannot_be_read_is_refused_rather_than_passed_over(
    two_classes: None, dataset: Path, opt_ml: Paths
) -> None:
    (dataset / "cat").chmod(0)
    powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if os.getuid() == 0 and subprocess.run([*powerless, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine does not let root be powerless")
    done = _run([*(powerless if os.getuid() == 0 else []), *COMMAND], opt_ml)
    (dataset / "cat").chmod(0o755)
    assert _message(done, opt_ml) == f"{dataset}/cat cannot be read: Permission denied.\n"


def test_broken_exif_data_does_not_fill_the_log(two_classes: None, add: Add, opt_ml: Paths) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "WEBP", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    add("cat/short_exif.webp", stream.getvalue())
    done = _run(COMMAND, opt_ml)
    assert (done.returncode, done.stderr) == (0, "")


def _tiny(number: int) -> bytes:
    """A PNG of four grey pixels, a different one for each number below 2 ** 32."""
    pixels = struct.pack(">I", number)
    rows = b"\0" + pixels[:2] + b"\0" + pixels[2:]
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows, 1)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


@pytest.mark.long
def test_ten_thousand_classes_are_prepared_in_bounded_time_and_memory(dataset: Path, opt_ml: Paths) -> None:
    for shard in range(3):
        members = [(f"class-{n:05}/{shard}.png", _tiny(n * 40_503 + shard)) for n in range(10_000)]
        tar(dataset / f"images-{shard:05}.tar", members)
    # Not getrusage's ru_maxrss: Linux lets a program inherit the peak of the process that started it.
    code = (
        "from pathlib import Path; from training.__main__ import main; assert main(['prepare']) == 0; "
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = _run([sys.executable, "-c", code], opt_ml)
    assert done.stdout.startswith("10000 classes; images: 10000 train, 10000 valid, 10000 test; "), done.stderr
    assert int(done.stdout.split()[-1]) < 400_000  # kilobytes
